//! Copies the inputs that lie in shared memory into their request. They count against the limits that bytes of a body
//! count against, each before anything is copied.

use super::Placed;
use super::placement::about;
use crate::admission::Reserved;
use crate::error::ErrorCode;
use crate::frontend::{Call, Frontend, Refusal, large};
use crate::pipeline::{Outcome, Undecoded};
use crate::tensor::NamedTensor;

impl Frontend {
    /// To be called with every request before it goes on; does nothing where all of it has come with its body.
    ///
    /// # Errors
    /// When the tensors would pass a limit, are none, or their segment has become shorter.
    pub(in crate::frontend) async fn fetch(
        &self,
        call: &mut Call,
        reserved: &mut Option<Reserved>,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        if call.placed.is_empty() {
            return Ok(());
        }
        let placed = std::mem::take(&mut call.placed);
        let bytes = self.checked(&placed, call.request.input_bytes())?;
        let held = self.pipeline.admission().receive();
        held.grow(bytes)?;
        let inputs = if large::is_large_copy(bytes) {
            if reserved.is_none() {
                let (request, deadline) = (&call.request, call.request.schedule.deadline);
                let undecoded = Undecoded { model: &request.model, version: request.version, bytes, deadline };
                let place = self.pipeline.reserve(&undecoded, outcome).await.map_err(|error| self.refusal(&error))?;
                *reserved = Some(place);
            }
            self.on_pool(move || read(placed)).await??
        } else {
            read(placed)?
        };
        for (at, input) in inputs {
            call.request.inputs.insert(at, input);
        }
        call.request.decode = call.request.received_at.elapsed();
        // From here on admission counts.
        drop(held);
        Ok(())
    }

    /// The bytes that will be copied.
    fn checked(&self, placed: &[Placed], others: u64) -> Result<u64, Refusal> {
        for input in placed {
            input.check().map_err(|error| about("input", &input.name, error))?;
        }
        let max = self.limits.load().body_bytes_max;
        let sizes = placed.iter().map(|input| input.slot.byte_size);
        let all = sizes.fold(others, u64::saturating_add);
        if all > max.0 {
            let why = format!("the inputs take more than the {max} allowed, shared memory included");
            return Err(Refusal::new(ErrorCode::PayloadTooLarge, why));
        }
        Ok(all - others)
    }
}

/// In the order of their places.
fn read(placed: Vec<Placed>) -> Result<Vec<(usize, NamedTensor)>, Refusal> {
    placed.into_iter().map(Placed::read).collect()
}
