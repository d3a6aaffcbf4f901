//! A tonic unary server with two methods: `Echo` gives the message's bytes back unread, `ModelInfer` decodes the request
//! and answers with its input tensors as outputs. The first is the limit of tonic, the second of tonic and prost.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::messages::{ModelInferRequest, ModelInferResponse};

pub async fn serve(address: SocketAddr) -> Result<(), crate::AnyError> {
    tonic::transport::Server::builder().add_service(Echo).serve(address).await?;
    Ok(())
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path() {
            "/inference.GRPCInferenceService/Echo" => Box::pin(async {
                Ok(Grpc::new(RawCodec).max_decoding_message_size(MESSAGE_BYTES_MAX).unary(Raw, request).await)
            }),
            "/inference.GRPCInferenceService/ModelInfer" => Box::pin(async {
                let codec = ProstCodec::default();
                Ok(Grpc::new(codec).max_decoding_message_size(MESSAGE_BYTES_MAX).unary(Infer, request).await)
            }),
            other => {
                let answer = Status::unimplemented(format!("expected Echo or ModelInfer, got {other}")).into_http();
                Box::pin(ready(Ok(answer)))
            }
        }
    }
}

struct Raw;

impl UnaryService<Bytes> for Raw {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

struct Infer;

impl UnaryService<ModelInferRequest> for Infer {
    type Response = ModelInferResponse;
    type Future = Ready<Result<Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        let request = request.into_inner();
        ready(Ok(Response::new(ModelInferResponse {
            model_name: request.model_name,
            model_version: request.model_version,
            id: request.id,
            outputs: request.inputs,
            raw_output_contents: request.raw_input_contents,
        })))
    }
}

struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

const MESSAGE_BYTES_MAX: usize = 64 << 20;
