//! The embedding API: a node inside another program.

use crate::boot::{self, BootError, MachineFactory, RunOptions};
use crate::config::Config;
use crate::control::{LogControl, StopSignals};
use crate::events::{self, EventSink, Events};
use ringraft_shard::machine::{KvMachine, StateMachine};
use ringraft_types::GroupId;
use std::sync::Arc;

/// The built-in key-value machine, for every group.
pub(crate) fn key_value() -> MachineFactory {
    Arc::new(|_| Box::new(KvMachine::new()))
}

/// A node, to be run by the program that builds it.
pub struct Server {
    config: Config,
    machines: MachineFactory,
    allow_buffered: bool,
    events: Option<EventSink>,
}

impl Server {
    /// A node with the built-in key-value machine in every group.
    pub fn new(config: Config) -> Self {
        Self { config, machines: key_value(), allow_buffered: false, events: None }
    }

    /// Every group gets a machine of this making instead. It is called on the group's shard, once
    /// per start: everything committed is then applied to the machine, in order. Every node of the
    /// cluster must make the same machine for the same group.
    #[must_use]
    pub fn machine(
        mut self,
        make: impl Fn(GroupId) -> Box<dyn StateMachine> + Send + Sync + 'static,
    ) -> Self {
        self.machines = Arc::new(make);
        self
    }

    /// Tells what happens in the node, from its start on: `waiting_max` events may wait to be taken,
    /// more are lost and counted. It costs the shards nothing, and waits for nobody. Asked for again,
    /// the queue of before ends.
    ///
    /// # Panics
    /// If none may wait.
    #[must_use]
    pub fn events(&mut self, waiting_max: usize) -> Events {
        assert!(waiting_max > 0, "an event must be able to wait");
        let (sink, events) = events::queue(waiting_max);
        self.events = Some(sink);
        events
    }

    /// Accepts a file system without direct I/O: for development only.
    #[must_use]
    pub fn allow_buffered(mut self) -> Self {
        self.allow_buffered = true;
        self
    }

    /// Runs the node until SIGTERM or SIGINT, with logs on stderr unless the program has a
    /// subscriber of its own. Installs a hook that aborts the process on a panic: half of a node
    /// must not go on.
    ///
    /// # Errors
    /// If it can't start, or had to stop.
    pub fn run(self) -> Result<(), BootError> {
        let log = LogControl::install(&self.config.log);
        let stop = StopSignals::install()
            .map_err(|error| BootError::System { what: "listening for signals", error })?;
        self.run_until(log, stop)
    }

    /// As [`Server::run`], with logs and signals that are set up already.
    ///
    /// # Errors
    /// If it can't start, or had to stop.
    pub fn run_until(self, log: LogControl, stop: StopSignals) -> Result<(), BootError> {
        let options =
            RunOptions { allow_buffered: self.allow_buffered, log, stop, events: self.events };
        boot::run(self.config, options, self.machines)
    }
}
