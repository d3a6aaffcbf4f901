//! Handles of the metrics of energy. They are told while there is a source that can be read: a counter that stands still
//! would say that nothing was used.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::proto::MetricFamily;
use prometheus::{Counter, CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::catalogue;
use super::metrics::{forget_in, register, register_histogram};

/// The families of energy.
#[derive(Debug)]
pub struct EnergyMetrics {
    told: Registry,
    is_told: AtomicBool,
    counted: CounterVec,
    attributed: CounterVec,
    overhead: CounterVec,
    idle: CounterVec,
    other: CounterVec,
    request: HistogramVec,
    operational: CounterVec,
    embodied: CounterVec,
    source: IntGaugeVec,
    dropped: IntCounterVec,
    pub sampler_cpu: Counter,
}

/// Where numbers come from, as labels.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub source: &'static str,
    pub quality: &'static str,
}

/// The handles of what is not a build's.
#[derive(Debug)]
pub struct WindowEnergy {
    pub overhead: Counter,
    pub idle: Counter,
    pub other: Counter,
}

/// The handles of one build.
#[derive(Debug)]
pub struct BuildEnergy {
    pub attributed: Counter,
    pub request: Histogram,
    /// Where the intensity of the grid is known.
    pub carbon: Option<Counter>,
}

impl EnergyMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let told = Registry::new();
        Self {
            counted: register(&told, &catalogue::ENERGY, CounterVec::new),
            attributed: register(&told, &catalogue::ENERGY_ATTRIBUTED, CounterVec::new),
            overhead: register(&told, &catalogue::ENERGY_OVERHEAD, CounterVec::new),
            idle: register(&told, &catalogue::ENERGY_IDLE, CounterVec::new),
            other: register(&told, &catalogue::ENERGY_OTHER, CounterVec::new),
            request: register_histogram(&told, &catalogue::REQUEST_ENERGY),
            operational: register(&told, &catalogue::CARBON_OPERATIONAL, CounterVec::new),
            embodied: register(registry, &catalogue::CARBON_EMBODIED, CounterVec::new),
            source: register(&told, &catalogue::ENERGY_SOURCE, IntGaugeVec::new),
            dropped: register(registry, &catalogue::ENERGY_WINDOWS_DROPPED, IntCounterVec::new),
            sampler_cpu: register(registry, &catalogue::ENERGY_SAMPLER_CPU, |opts, _| Counter::with_opts(opts)),
            is_told: AtomicBool::new(false),
            told,
        }
    }

    /// Names the source: the coefficients of a model, and what is taken for idle power.
    pub fn begin(&self, origin: Origin, coefficients: &str, idle: &str) -> WindowEnergy {
        self.source.with_label_values(&[origin.source, origin.quality, coefficients, idle]).set(1);
        let labels = [origin.source, origin.quality];
        WindowEnergy {
            overhead: self.overhead.with_label_values(&labels),
            idle: self.idle.with_label_values(&labels),
            other: self.other.with_label_values(&labels),
        }
    }

    pub fn build(&self, origin: Origin, labels: [&str; 3], has_carbon: bool) -> BuildEnergy {
        let [model, version, variant] = labels;
        let labels = [model, version, variant, origin.source, origin.quality];
        BuildEnergy {
            attributed: self.attributed.with_label_values(&labels),
            request: self.request.with_label_values(&labels),
            carbon: has_carbon.then(|| self.operational.with_label_values(&labels)),
        }
    }

    /// What a domain's counters said.
    pub fn counted(&self, origin: Origin, domain: &'static str) -> Counter {
        self.counted.with_label_values(&[origin.source, origin.quality, domain])
    }

    pub fn dropped(&self, reason: &'static str) -> IntCounter {
        self.dropped.with_label_values(&[reason])
    }

    /// Of the machine, told from the first gram on.
    pub fn embodied(&self) -> Counter {
        self.embodied.with_label_values(&[] as &[&str])
    }

    /// Whether the source can be read.
    pub fn tell(&self, can_be_read: bool) {
        self.is_told.store(can_be_read, Ordering::Relaxed);
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        if self.is_told.load(Ordering::Relaxed) { self.told.gather() } else { Vec::new() }
    }

    pub(super) fn forget_model(&self, model: &str) {
        forget_in(&self.attributed, model);
        forget_in(&self.request, model);
        forget_in(&self.operational, model);
    }
}
