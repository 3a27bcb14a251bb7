//! What a reload changes of a proxy at work beside who is let in: what is sharded, how the controller
//! works, limits and deadlines.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::StartError;
use super::stored_map::follow;
use crate::backend::{self, LiveConfig, NodeAddress};
use crate::config::{GroupPolicy, Policy, Serve};
use crate::controller::{self, ControllerContext, Insight, Settings, Status};
use crate::executor::Engine;
use crate::mover::MoverContext;
use crate::placement;
use crate::runtime::Tasks;
use crate::shard_move::{Import, ImportedTable};

/// How long a controller may take to store its history when its settings change.
const LEAVE: Duration = Duration::from_secs(10);

/// The hold on a proxy at work. Cheap to clone: all clones steer the same one.
#[derive(Debug, Clone)]
pub(super) struct Steering {
    engine: Arc<Engine>,
    mover: Arc<MoverContext>,
    backend: LiveConfig,
    settings: watch::Sender<Settings>,
    placement: Arc<ArcSwap<placement::Config>>,
    /// The groups as the policy has them, to be imported.
    imports: Arc<ArcSwap<Vec<Import>>>,
    /// What the controller sees and decides.
    status: watch::Sender<Arc<Status>>,
    insight: Insight,
}

impl Steering {
    pub(super) fn new(
        (engine, mover): (&Arc<Engine>, &Arc<MoverContext>),
        backend: backend::Config,
        policy: &Policy,
    ) -> Self {
        let settings = settings(policy);
        Self {
            engine: Arc::clone(engine),
            mover: Arc::clone(mover),
            backend: Arc::new(ArcSwap::from_pointee(backend)),
            placement: Arc::new(ArcSwap::from_pointee(settings.placement.clone())),
            settings: watch::Sender::new(settings),
            imports: Arc::new(ArcSwap::from_pointee(imports(policy))),
            status: watch::Sender::default(),
            insight: Insight::default(),
        }
    }

    /// The limits of connections in force.
    pub(super) fn backend(&self) -> LiveConfig {
        Arc::clone(&self.backend)
    }

    /// Puts limits and deadlines of connections, statements and moves in force. What waits already goes by
    /// those that it began with.
    pub(super) fn limit(&self, serve: &Serve) {
        self.backend.store(Arc::new(serve.backend.clone()));
        self.engine.set_config(serve.executor.clone());
        self.mover.set_config(serve.policy.mover.clone());
    }

    /// What the controller sees and decides, once it is started.
    pub(super) fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.subscribe()
    }

    /// Load and forecasts.
    pub(super) fn insight(&self) -> Insight {
        self.insight.clone()
    }

    /// What each node can bear, for those who ask now and then.
    pub(super) fn placement(&self) -> Arc<ArcSwap<placement::Config>> {
        Arc::clone(&self.placement)
    }

    /// The groups of the policy in force as an import has them.
    pub(super) fn imports(&self) -> Arc<ArcSwap<Vec<Import>>> {
        Arc::clone(&self.imports)
    }

    /// The groups that have another shard key in a policy than in the map in force.
    pub(super) fn waiting_keys(&self, policy: &Policy) -> Vec<String> {
        policy.waiting_keys(&self.engine.live_map.load())
    }

    /// The groups of a policy of which the map in force lacks tables: they are plain ones that have rows.
    pub(super) fn waiting_imports(&self, policy: &Policy) -> Vec<String> {
        policy.waiting_imports(&self.engine.live_map.load())
    }

    /// Puts a policy in force. If it can't be, nothing is changed.
    pub(super) async fn follow(
        &self,
        policy: &Policy,
        configured: &[NodeAddress],
    ) -> Result<(), StartError> {
        follow(&self.engine, policy, configured).await?;
        self.imports.store(Arc::new(imports(policy)));
        let new = settings(policy);
        self.placement.store(Arc::new(new.placement.clone()));
        self.settings.send_if_modified(|settings| {
            let changed = *settings != new;
            *settings = new;
            changed
        });
        Ok(())
    }

    /// Starts the loop that looks, forecasts and decides.
    pub(super) fn start_controller(&self, tasks: &Tasks) {
        let (engine, sender, shown) =
            (Arc::clone(&self.engine), self.status.clone(), self.insight.clone());
        let context = move |settings| ControllerContext {
            catalog: engine.catalog.clone(),
            live_map: engine.live_map.clone(),
            counters: engine.counters.clone(),
            samples: engine.samples.clone(),
            nodes: engine.nodes.clone(),
            settings,
            status: sender.clone(),
            insight: shown.clone(),
        };
        let settings = self.settings.subscribe();
        tasks.spawn("controller", control(context, settings, tasks.clone()));
    }
}

/// Runs the controller; with other settings it starts anew, as after a restart of the proxy.
async fn control(
    context: impl Fn(Settings) -> ControllerContext,
    mut settings: watch::Receiver<Settings>,
    tasks: Tasks,
) {
    while !tasks.token().is_cancelled() {
        let term = tasks.child();
        let current = settings.borrow_and_update().clone();
        let mut running = Box::pin(controller::run(context(current), term.clone()));
        tokio::select! {
            () = &mut running => {}
            changed = settings.changed() => {
                if changed.is_ok() {
                    term.token().cancel();
                }
                running.await;
            }
        }
        if !term.stop(LEAVE).await {
            tracing::warn!("some tasks of the controller did not end in time");
        }
    }
}

fn settings(policy: &Policy) -> Settings {
    Settings {
        controller: policy.controller.clone(),
        load: policy.load.clone(),
        forecast: policy.forecast.clone(),
        placement: policy.placement.clone(),
    }
}

/// Each group, to be imported and split.
fn imports(policy: &Policy) -> Vec<Import> {
    let import = |group: &GroupPolicy| {
        let tables = group.tables.iter();
        let functions = policy.functions.iter().filter(|function| function.group == group.name);
        Import {
            group: group.name.clone(),
            key: group.key.clone(),
            bounds: group.bounds.clone(),
            tables: tables
                .map(|it| ImportedTable { name: it.name.clone(), key: it.key.clone() })
                .collect(),
            functions: functions.map(|it| (it.name.clone(), it.arguments.clone())).collect(),
            split: true,
            check_only: false,
        }
    };
    policy.groups.iter().map(import).collect()
}
