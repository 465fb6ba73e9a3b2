//! What is measured when somebody asks: gauges that live as long as one answer, so that what is gone leaves nothing
//! behind, and nothing is kept for groups and consumers that nobody asks about.

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

type Whole = Gauge<u64, AtomicU64>;
type Real = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct GroupLabel {
    group: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ConsumerLabel {
    group: String,
    consumer: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabel {
    state: &'static str,
}

/// The gauges of one answer.
pub struct Scrape {
    registry: Registry,
    group_tail: Family<GroupLabel, Whole>,
    group_earliest: Family<GroupLabel, Whole>,
    group_bytes: Family<GroupLabel, Whole>,
    group_segments: Family<GroupLabel, Whole>,
    states: Family<StateLabel, Whole>,
    position: Family<ConsumerLabel, Whole>,
    lag_events: Family<ConsumerLabel, Whole>,
    lag_seconds: Family<ConsumerLabel, Real>,
}

impl Default for Scrape {
    fn default() -> Self {
        let mut scrape = Self {
            registry: Registry::default(),
            group_tail: Family::default(),
            group_earliest: Family::default(),
            group_bytes: Family::default(),
            group_segments: Family::default(),
            states: Family::default(),
            position: Family::default(),
            lag_events: Family::default(),
            lag_seconds: Family::default(),
        };
        let registry = scrape.registry.sub_registry_with_prefix("eddyline");
        registry.register("group_tail", "Next offset of a group", scrape.group_tail.clone());
        registry.register("group_earliest", "First offset of a group that can be read", scrape.group_earliest.clone());
        registry.register_with_unit("group", "Stored bytes of a group", Unit::Bytes, scrape.group_bytes.clone());
        registry.register("group_segments", "Segments of a group", scrape.group_segments.clone());
        registry.register("consumers", "Consumers by state", scrape.states.clone());
        registry.register("consumer_position", "Next offset that a consumer has to ack", scrape.position.clone());
        registry.register("consumer_lag_events", "Events that a consumer has not acked", scrape.lag_events.clone());
        registry.register_with_unit(
            "consumer_lag",
            "Age of the oldest event that a consumer has not acked",
            Unit::Seconds,
            scrape.lag_seconds.clone(),
        );
        scrape
    }
}

impl Scrape {
    /// The process that answers: its resident memory and the CPU time it used.
    pub fn process(&mut self, resident_bytes: u64, cpu_seconds: f64) {
        let memory = ConstGauge::new(resident_bytes);
        self.registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, memory);
        let cpu = ConstCounter::new(cpu_seconds);
        self.registry.register_with_unit("process_cpu", "CPU time used", Unit::Seconds, cpu);
    }

    /// One number of the broker.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.own(name, help, None, ConstGauge::new(value));
    }

    /// One number of bytes of the broker; its name ends in `_bytes`, which `name` leaves out.
    pub fn bytes(&mut self, name: &str, help: &str, value: u64) {
        self.own(name, help, Some(Unit::Bytes), ConstGauge::new(value));
    }

    fn own<M: EncodeMetric + Send + Sync + std::fmt::Debug + 'static>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        metric: M,
    ) {
        let registry = self.registry.sub_registry_with_prefix("eddyline");
        match unit {
            None => registry.register(name, help, metric),
            Some(unit) => registry.register_with_unit(name, help, unit, metric),
        }
    }

    /// A group: its range, its stored bytes and its segments.
    pub fn group(&self, group: &str, earliest: u64, tail: u64, bytes: u64, segments: u64) {
        let label = GroupLabel { group: group.to_owned() };
        let families = [&self.group_earliest, &self.group_tail, &self.group_bytes, &self.group_segments].into_iter();
        for (family, value) in families.zip([earliest, tail, bytes, segments]) {
            family.get_or_create(&label).set(value);
        }
    }

    /// How many consumers are in a state.
    pub fn state(&self, state: &'static str, consumers: u64) {
        self.states.get_or_create(&StateLabel { state }).set(consumers);
    }

    /// A consumer: the next offset it has to ack, and how far it is behind.
    pub fn consumer(&self, group: &str, consumer: &str, position: u64, lag_events: u64, lag_seconds: f64) {
        let label = ConsumerLabel { group: group.to_owned(), consumer: consumer.to_owned() };
        self.position.get_or_create(&label).set(position);
        self.lag_events.get_or_create(&label).set(lag_events);
        self.lag_seconds.get_or_create(&label).set(lag_seconds);
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}
