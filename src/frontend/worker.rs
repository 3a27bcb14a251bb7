//! What the sessions of one worker share, beside what all sessions share.

use std::sync::Arc;

use super::auth::Users;
use super::cancel::Cancels;
use super::config::Config;
use super::pools::Pools;
use super::statements::AllStatements;
use super::templates::AllTemplates;
use crate::executor::Engine;
use crate::runtime::Tasks;

/// What the sessions of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub engine: Arc<Engine>,
    pub users: Arc<Users>,
    pub cancels: Arc<Cancels>,
    pub config: Config,
    pub pools: Pools,
    pub statements: AllStatements,
    pub templates: AllTemplates,
    pub tasks: Tasks,
}
