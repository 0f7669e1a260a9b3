//! A client of the quorum, with every outcome as an exit code.

use super::Global;
use super::consistency::ReadArgs;
use super::exit::{Exit, Failure};
use super::level::Written;
use ringraft_net::ClientError;
use ringraft_net::client::{Client, ClientOptions, Reason, Response, SubmitError};
use ringraft_types::command::CommandError;
use ringraft_types::{GroupId, Level, NodeId, Status};
use std::time::Duration;

/// One group of the quorum at the endpoints.
#[derive(Debug)]
pub(crate) struct Quorum {
    client: Client,
    group: GroupId,
    /// The first endpoint.
    first: Option<String>,
}

impl Quorum {
    pub(crate) fn connect(global: &Global) -> Result<Self, Failure> {
        let group = global.group();
        let options = options(global);
        let first = options.endpoints.first().cloned();
        let client = Client::connect(options).map_err(failure)?;
        Ok(Self { client, group, first })
    }

    /// Writes, and waits until the write is applied and at a level.
    pub(crate) fn write(&mut self, command: &[u8], level: Level) -> Result<Written, Failure> {
        match self.client.write_at_level(self.group, command, level) {
            Ok(response) => Ok(Written { response, lacks: None }),
            Err(ClientError::Below { response, lacks }) => {
                Ok(Written { response: *response, lacks: Some(lacks) })
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// Reads what the options say, from the leader or from one node.
    pub(crate) fn read(&mut self, command: &[u8], of: &ReadArgs) -> Result<Response, Failure> {
        let consistency = of.consistency()?;
        let address = match of.node {
            Some(node) => Some(self.address_of(node)?),
            // Any node will do: the first that was named.
            None if consistency.is_of_leader() => None,
            None => self.first.clone(),
        };
        let (client, at) = (&mut self.client, address.as_deref());
        client.read_of(at, self.group, command, consistency).map_err(failure)
    }

    /// Where a member's clients find it.
    fn address_of(&mut self, node: u32) -> Result<String, Failure> {
        let group = self.group;
        member_address(&mut self.client, group, NodeId(node))?.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("node {node} is no member of group {group}"))
                .cure("`ringraft node ls` shows the members")
        })
    }
}

/// Where the clients of a group's member find it, if the node is one.
pub(crate) fn member_address(
    client: &mut Client,
    group: GroupId,
    node: NodeId,
) -> Result<Option<String>, Failure> {
    let members = client.locate(group).map_err(failure)?.members;
    Ok(members.into_iter().find(|member| member.node == node).map(|member| member.address))
}

/// How long one node may take to say how it is: that some don't answer is what people ask for, and
/// wait for.
pub(crate) const NODE_PATIENCE: Duration = Duration::from_secs(2);

/// The client's options as the command line gives them.
pub(crate) fn options(global: &Global) -> ClientOptions {
    let endpoints = global.endpoints.iter().map(ToString::to_string).collect();
    let mut options = ClientOptions::new(endpoints);
    options.group = global.group();
    options.timeout = global.timeout;
    options
}

/// What the client says, with its exit code.
pub(crate) fn failure(error: ClientError) -> Failure {
    let exit = match &error {
        ClientError::NoEndpoint
        | ClientError::Endpoint { .. }
        | ClientError::Submit(SubmitError::NoGroup | SubmitError::NoNode) => Exit::Usage,
        ClientError::Random { .. } | ClientError::Poll { .. } => Exit::Environment,
        ClientError::NoStatus { .. } => Exit::Unavailable,
        ClientError::Submit(_) => Exit::NotDone,
        ClientError::Below { .. } => Exit::NotReached,
        ClientError::NotDone { reason, .. } => match reason {
            Reason::Deadline => Exit::Unavailable,
            // These pass when there is a leader again: for a script it is the same as no answer.
            Reason::Refused(
                Status::NotLeader | Status::NotReady | Status::Stopping | Status::Transferring,
            ) => Exit::Unavailable,
            Reason::Refused(_) => Exit::NotDone,
        },
        // An answer that makes no sense says nothing of what was done.
        ClientError::Unknown { .. } | ClientError::Wire(_) => Exit::Unknown,
    };
    let failure = Failure::new(exit, error.to_string());
    match exit {
        Exit::Unavailable => failure.cure(
            "`ringraft status` shows which nodes answer; --endpoints or RINGRAFT_ENDPOINTS name them",
        ),
        Exit::Unknown => failure.cure("read the key to see whether the write was done"),
        _ => failure,
    }
}

/// A command that the library refuses to encode: a key or value over its limit.
pub(crate) fn refused(error: CommandError) -> Failure {
    Failure::new(Exit::NotDone, format!("not done: {error}"))
}

/// A reply that can't be read.
pub(crate) fn unreadable(error: ringraft_types::reply::ReplyError) -> Failure {
    Failure::new(Exit::Unknown, format!("{error}")).cure("use the servers' version of ringraft")
}
