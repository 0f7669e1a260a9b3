//! A connection of the load generator over the native client.

use std::time::Duration;

use ringraft_net::client::{self, Client, ClientOptions, Reason};
use ringraft_net::client_wire::Consistency;
use ringraft_types::command::{Keys, PutCommand, RangeCommand};
use ringraft_types::{GroupId, Status};

use super::{Completed, Connection, Operation, Outcome, Refused};

/// One native client, with a session of its own.
#[derive(Debug)]
pub struct NativeConnection {
    client: Client,
    timeout: Duration,
    command: Vec<u8>,
}

impl NativeConnection {
    /// A client of the cluster behind these endpoints; each operation has this long.
    ///
    /// # Errors
    /// If the endpoints make no sense.
    pub fn new(endpoints: Vec<String>, timeout: Duration) -> std::io::Result<Self> {
        let options = ClientOptions { calls_max: 1 << 20, ..ClientOptions::new(endpoints) };
        let client = Client::connect(options).map_err(std::io::Error::other)?;
        Ok(Self { client, timeout, command: Vec::new() })
    }
}

impl Connection for NativeConnection {
    fn submit(&mut self, group: GroupId, operation: Operation<'_>) -> Result<u64, Refused> {
        self.command.clear();
        let submitted = match operation {
            Operation::Write { key, value } => {
                let put = PutCommand { key, value, previous: false };
                put.encode(&mut self.command).map_err(|_| Refused::Other)?;
                self.client.submit_write(group, &self.command, self.timeout)
            }
            Operation::Read { key, lease } => {
                let range = RangeCommand::current(Keys::One(key));
                range.encode(&mut self.command).map_err(|_| Refused::Other)?;
                let consistency =
                    if lease { Consistency::Lease } else { Consistency::Linearizable };
                self.client.submit_read_of(None, group, &self.command, consistency, self.timeout)
            }
        };
        match submitted {
            Ok(call) => Ok(call.0),
            Err(client::SubmitError::Busy { .. }) => Err(Refused::Busy),
            Err(_) => Err(Refused::Other),
        }
    }

    fn poll(&mut self, timeout: Duration, ended: &mut Vec<Completed>) -> std::io::Result<()> {
        let completions = self.client.poll(timeout).map_err(std::io::Error::other)?;
        ended.extend(completions.map(|completed| Completed {
            call: completed.call.0,
            outcome: match completed.outcome {
                client::Outcome::Done(_) | client::Outcome::Below(..) => Outcome::Done,
                client::Outcome::NotDone(Reason::Refused(Status::Busy)) => Outcome::Busy,
                client::Outcome::NotDone(_) => Outcome::Refused,
                client::Outcome::Unknown(_) => Outcome::Unknown,
            },
        }));
        Ok(())
    }
}
