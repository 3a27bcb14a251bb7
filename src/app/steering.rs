//! What a reload changes of a proxy at work beside who is let in: what is sharded, and how the
//! controller works.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::StartError;
use super::stored_map::follow;
use crate::backend::NodeAddress;
use crate::config::Policy;
use crate::controller::{self, ControllerContext, Insight, Settings, Status};
use crate::executor::Engine;
use crate::placement;
use crate::runtime::Tasks;

/// How long a controller may take to store its history when its settings change.
const LEAVE: Duration = Duration::from_secs(10);

/// The hold on a proxy at work. Cheap to clone: all clones steer the same one.
#[derive(Debug, Clone)]
pub(super) struct Steering {
    engine: Arc<Engine>,
    settings: watch::Sender<Settings>,
    placement: Arc<ArcSwap<placement::Config>>,
}

impl Steering {
    pub(super) fn new(engine: &Arc<Engine>, policy: &Policy) -> Self {
        let settings = settings(policy);
        Self {
            engine: Arc::clone(engine),
            placement: Arc::new(ArcSwap::from_pointee(settings.placement.clone())),
            settings: watch::Sender::new(settings),
        }
    }

    /// What each node can bear, for those who ask now and then.
    pub(super) fn placement(&self) -> Arc<ArcSwap<placement::Config>> {
        Arc::clone(&self.placement)
    }

    /// Puts a policy in force. If it can't be, nothing is changed.
    pub(super) async fn follow(
        &self,
        policy: &Policy,
        configured: &[NodeAddress],
    ) -> Result<(), StartError> {
        follow(&self.engine, policy, configured).await?;
        let new = settings(policy);
        self.placement.store(Arc::new(new.placement.clone()));
        self.settings.send_if_modified(|settings| {
            let changed = *settings != new;
            *settings = new;
            changed
        });
        Ok(())
    }

    /// Starts the loop that looks, forecasts and decides; what it publishes.
    pub(super) fn start_controller(
        &self,
        tasks: &Tasks,
    ) -> (watch::Receiver<Arc<Status>>, Insight) {
        let insight = Insight::default();
        let (sender, status) = watch::channel(Arc::default());
        let (engine, shown) = (Arc::clone(&self.engine), insight.clone());
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
        (status, insight)
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
