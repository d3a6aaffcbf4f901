//! The composition root: a configuration becomes a running server, and ends in order.
//!
//! Start: pool, repository, pipeline, listeners; ready when the first models have loaded. End: unready at once and
//! clients asked to leave, the drain delay, listeners closed, requests in flight finished, repository stopped.

mod summary;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::access::Access;
use crate::admission::Admission;
use crate::batching::Batcher;
use crate::cache::Cache;
use crate::config::{Config, ConfigError};
use crate::engine::{Automatic, Pool};
use crate::frontend::address::Mode;
use crate::frontend::admin::{self, ReloadReport, ReloadRequest};
use crate::frontend::health::Phase;
use crate::frontend::listener::{Counting, Drain, Listener, Routes, Serving};
use crate::frontend::tls::config::Secured;
use crate::frontend::{
    Address, Browsers, Cors, CpuShare, Frontend, Guard, Health, Parts, Refusal, SharedMemory, Tls, grpc, rest,
};
use crate::integrity::Trust;
use crate::metering::Meter;
use crate::pipeline::Pipeline;
use crate::repository::{Control, Loading, Repository};
use crate::routing::Router;
use crate::telemetry::logs::Logs;
use crate::telemetry::{Metrics, Tracer};

/// Reads the configuration anew, from the same file, environment and flags as at the start.
pub type Reread = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// A server that has loaded its first models and listens.
#[derive(Debug)]
pub struct Running {
    frontend: Frontend,
    doors: Vec<Door>,
    drain: Drain,
    settings: Arc<Settings>,
    started: std::time::Instant,
}

/// The configuration that holds, and how to read it again.
struct Settings {
    current: Mutex<Config>,
    reread: Reread,
    /// Held by the reload that is under way: a signal and a call may come together, and what one read must not undo
    /// what the other took.
    reloading: tokio::sync::Mutex<()>,
    tls: Option<Tls>,
    frontend: Frontend,
}

/// Builds everything, binds the listeners, and returns when the first models have loaded. Probes are answered while
/// they load.
///
/// # Errors
/// When an address cannot be bound, or a model fails to load where the configuration does not allow that.
pub async fn start(config: Config, logs: Logs, reread: Reread) -> Result<Running> {
    let started = std::time::Instant::now();
    let frontend = build(&config, logs).await?;
    let (reloads, requests) = mpsc::channel(1);
    let drain = Drain::default();
    let tls = Tls::start(&config.tls, frontend.metrics.tls.clone()).context("TLS cannot be spoken")?;
    let doors = listen(&config, &frontend, tls.as_ref(), reloads, &drain)?;
    let repository = Arc::clone(&frontend.repository);
    let (current, reloading) = (Mutex::new(config), tokio::sync::Mutex::new(()));
    let settings = Arc::new(Settings { current, reread, reloading, tls, frontend: frontend.clone() });
    tokio::spawn(Arc::clone(&settings).answer(requests));
    repository.wait_loaded().await?;
    let unserved = summary::unserved(&repository.catalog(), &settings.current().repository);
    if let Some(reason) = unserved {
        tracing::warn!(reason, "no model is served");
    }
    frontend.health.advance(Phase::Ready);
    Ok(Running { frontend, doors, drain, settings, started })
}

/// Reads certificates and loads every model once, as `serve` would, and says what was found.
///
/// # Errors
/// When the repository cannot be read, or a model in it cannot be served.
pub async fn check(config: &Config, logs: Logs) -> Result<String> {
    let mut strict = config.clone();
    strict.repository.start_with_failures = false;
    match strict.repository.control {
        // Those that are named at the start must be there too.
        Control::Explicit => strict.repository.load_at_start.push("*".into()),
        Control::Demand => strict.repository.control = Control::None,
        Control::None | Control::Poll => {}
    }
    Tls::check(&config.tls).context("TLS cannot be spoken")?;
    let frontend = build(&strict, logs).await?;
    frontend.repository.wait_loaded().await?;
    let catalog = frontend.repository.catalog();
    let mut summary = summary::models(&catalog);
    strict.repository.control = Control::None;
    if let Some(reason) = summary::unserved(&catalog, &strict.repository) {
        summary.push_str(&format!("no model is served: {reason}\n"));
    }
    frontend.repository.stop().await;
    Ok(format!("configuration and repository are valid\n{summary}"))
}

/// What REST and gRPC answer with once the first models have loaded, where nothing listens.
///
/// # Errors
/// As `start`.
pub async fn routes(config: &Config, logs: Logs) -> Result<[Routes; 2]> {
    let frontend = build(config, logs).await?;
    frontend.repository.wait_loaded().await?;
    frontend.health.advance(Phase::Ready);
    Ok([rest::routes(frontend.clone(), &config.http), grpc::routes(frontend, config.grpc.web)])
}

pub(crate) async fn build(config: &Config, logs: Logs) -> Result<Frontend> {
    let metrics = Arc::new(Metrics::new());
    let meter = Meter::start(&config.metering, &metrics)?;
    let pool = Pool::start_spinning(Some(config.engine.cores()), config.engine.spin_time_max.0);
    let loading = Loading {
        batching: config.batching.clone(),
        engine: Arc::new(Automatic),
        options: config.load_options(),
        pool: pool.clone(),
        metrics: Arc::clone(&metrics),
        meter: meter.clone(),
        trust: Arc::new(Trust::read(&config.signatures).context("signatures cannot be checked")?),
    };
    let repository = Repository::start(config.repository.clone(), loading).await?;
    let pipeline = Pipeline::new(
        Admission::new(config.admission.clone(), Arc::clone(&metrics)),
        Arc::clone(&repository),
        Router::new(config.budgets.clone(), &metrics),
        Cache::new(&config.cache, &metrics),
        Batcher::new(pool.clone(), config.engine.inline_time_max.0),
        meter,
        Arc::clone(&metrics),
    );
    let pipeline = Arc::new(pipeline);
    tokio::spawn(govern(Arc::downgrade(&pipeline), config.metering.window.0));
    Ok(Frontend::new(Parts {
        pipeline,
        repository,
        health: Arc::new(Health::new()),
        limits: Arc::new(ArcSwap::from_pointee(config.limits.clone())),
        dialects: config.dialects.clone(),
        browsers: Browsers::new(&config.admin.browser_hosts),
        access: Access::start(&config.access, metrics.access.clone()).context("cannot read who may call")?,
        memory: SharedMemory::start(&config.shared_memory, metrics.shared_memory.clone())
            .context("cannot open the folder of shared memory")?,
        tracer: Tracer::start(&config.tracing, &metrics).context("cannot start the thread that sends traces")?,
        metrics,
        logs,
        cpu_share: CpuShare::of(pool.size()),
        pool,
    }))
}

/// Lets every window of the meter that ends be seen by who chooses builds, for as long as requests are served.
async fn govern(pipeline: Weak<Pipeline>, window: Duration) {
    let mut last = None;
    loop {
        // Half a window late at most.
        sleep(window / 2).await;
        let Some(pipeline) = pipeline.upgrade() else { return };
        let latest = pipeline.meter().latest().filter(|latest| last != Some(latest.number));
        if let Some(latest) = latest {
            pipeline.router().settle(&latest);
            last = Some(latest.number);
        }
    }
}

/// A bound listener that is being served.
#[derive(Debug)]
pub(crate) struct Door {
    /// "http", "grpc" or "admin".
    pub(crate) name: &'static str,
    pub(crate) address: Address,
    /// Whether it speaks TLS.
    pub(crate) is_secure: bool,
    serving: Serving,
}

impl Door {
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }
}

fn listen(
    config: &Config,
    frontend: &Frontend,
    tls: Option<&Tls>,
    reloads: mpsc::Sender<ReloadRequest>,
    drain: &Drain,
) -> Result<Vec<Door>> {
    let outflow = frontend.pipeline.admission().outflow();
    let open = |secured: Secured, (address, mode): (&Address, Mode), routes: Routes| {
        let name = secured.name();
        let listener =
            Listener::bind(address, mode).with_context(|| format!("cannot listen on {address} for {name}"))?;
        let address = listener.local_address()?;
        let (limits, metrics) = (Arc::clone(&frontend.limits), frontend.metrics.listener(name));
        let tls = tls.filter(|_| config.tls.covers(secured) && address.tcp().is_some()).cloned();
        let is_secure = tls.is_some();
        let dialects = (secured == Secured::Http).then_some(&config.dialects);
        let guard = Guard::new(frontend.access.clone(), frontend.browsers.clone(), dialects, &address);
        // Who operates the server must see it, whatever leaves.
        let counting = Counting { outflow: Arc::clone(outflow), refuses: secured != Secured::Admin };
        let serving = listener.serve(routes.counted(counting).guarded(guard), tls, limits, metrics, drain.clone());
        Ok::<_, anyhow::Error>(Door { name, address, is_secure, serving })
    };
    let cors = Cors::new(&config.cors.origins);
    let calls = grpc::routes(frontend.clone(), config.grpc.web).with_cors(cors.clone());
    let rest = rest::routes(frontend.clone(), &config.http).with_cors(cors);
    let (http, grpc) = ((&config.http.listen, config.http.socket_mode), (&config.grpc.listen, config.grpc.socket_mode));
    let mut doors = Vec::new();
    if http.0.is_shared_with(grpc.0) {
        doors.push(open(Secured::Http, http, Routes::by_content_type(rest, calls))?);
    } else {
        doors.push(open(Secured::Http, http, Routes::one(rest))?);
        doors.push(open(Secured::Grpc, grpc, Routes::one(calls))?);
    }
    let admin = (&config.admin.listen, config.admin.socket_mode);
    let control = admin::router(frontend.clone(), reloads, &config.admin);
    doors.push(open(Secured::Admin, admin, Routes::one(control))?);
    Ok(doors)
}

impl Running {
    /// What was loaded, where it listens, and one request that works.
    pub fn summary(&self, colour: bool) -> String {
        let config = self.settings.current();
        summary::start(&self.frontend.repository.catalog(), &self.doors, self.started.elapsed(), colour, &config)
    }

    /// Where a listener is: "http", "grpc" or "admin".
    pub fn address(&self, name: &str) -> Option<&Address> {
        self.doors.iter().find(|door| door.name == name).map(|door| &door.address)
    }

    /// Bytes of all bodies that are still arriving.
    pub fn receiving_bytes(&self) -> u64 {
        self.frontend.pipeline.admission().receiving_bytes()
    }

    /// Bytes of all answers that their clients have not taken yet.
    pub fn leaving_bytes(&self) -> u64 {
        self.frontend.pipeline.admission().outflow().bytes()
    }

    /// Reads the configuration again and takes what can change; the log says what was done.
    pub async fn reload(&self) {
        // Told in the log; a signal has nobody to answer to.
        let _ = self.settings.reload().await;
    }

    /// Ends the server; false when the grace passed with requests in flight.
    pub async fn drain(self) -> bool {
        let times = self.settings.current().drain;
        self.frontend.health.advance(Phase::Draining);
        self.drain.begin();
        tracing::info!(delay = %times.delay, grace = %times.grace, linger = %times.linger, "draining");
        sleep(times.delay.0).await;
        let deadline = tokio::time::Instant::now() + times.grace.0;
        self.drain.close(times.linger.0);
        let mut finished = true;
        for door in self.doors {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            finished &= door.serving.finished(left).await;
        }
        self.frontend.repository.stop().await;
        self.frontend.tracer.finish().await;
        tracing::info!(finished, "ended");
        finished
    }
}

impl Settings {
    /// Answers reload requests of the admin listener until that is gone.
    async fn answer(self: Arc<Self>, mut requests: mpsc::Receiver<ReloadRequest>) {
        while let Some(request) = requests.recv().await {
            // Whoever asked may have gone.
            let _ = request.send(self.reload().await);
        }
    }

    async fn reload(&self) -> Result<ReloadReport, Refusal> {
        let _alone = self.reloading.lock().await;
        let new = (self.reread)().map_err(|error| {
            tracing::warn!(%error, "configuration not reloaded");
            Refusal::invalid(error.to_string())
        })?;
        let report = self.adopt(&new);
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
        self.frontend.access.refresh();
        let config = self.current();
        let options = config.load_options();
        let trust = Trust::read(&config.signatures).inspect_err(|error| {
            tracing::warn!(%error, "signatures are checked as before: their keys were not taken anew");
        });
        let trust = trust.ok().map(Arc::new);
        let taken = self.frontend.repository.reconfigure(config.repository, config.batching, options, trust).await;
        if let Err(error) = taken {
            tracing::warn!(%error, "repository not read again");
        }
        // The lists as text that reads the same in both formats of the logs.
        let (applied, refused) = (report.applied.join(","), report.refused.join(","));
        tracing::info!(applied, refused, "configuration reloaded");
        Ok(report)
    }

    fn adopt(&self, new: &Config) -> ReloadReport {
        let mut current = self.lock();
        let reload = current.adopt(new);
        self.frontend.pipeline.admission().reconfigure(current.admission.clone());
        self.frontend.pipeline.router().reconfigure(current.budgets.clone());
        self.frontend.pipeline.cache().reconfigure(&current.cache);
        self.frontend.memory.reconfigure(&current.shared_memory);
        self.frontend.limits.store(Arc::new(current.limits.clone()));
        self.frontend.metrics.sampling.configure(&current.tracing);
        if reload.applied.contains(&"telemetry.log_level") {
            self.frontend.logs.set_level(current.telemetry.log_level);
        }
        let keys = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        ReloadReport { applied: keys(reload.applied), refused: keys(reload.refused) }
    }

    fn current(&self) -> Config {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Config> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settings")
    }
}

#[cfg(test)]
mod tests;
