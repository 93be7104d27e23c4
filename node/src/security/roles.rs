//! Who may call what: one table, every call of every service, nothing allowed that is not written here.
//!
//! Columns are the roles of a certificate. A gateway with both roles may do what either may; a gateway with none, nothing. No
//! operator and no node reads or writes mail through these services, whatever it holds: `WithToken` needs a gateway, because a
//! login token is signed for one.

use super::identity::Identity;

/// What the table says about one caller and one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Never.
    Denied,
    /// Only on the account that a login token names, signed for this gateway.
    WithToken,
    /// Yes.
    Allowed,
}

macro_rules! table {
    ($($call:ident = $name:literal: $lmtp:ident $imap:ident $operator:ident $node:ident,)*) => {
        /// Every call of every service. The requests on the stream `Mail.Call` are calls of their own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the name says it; the services' own documentation says the rest")]
        pub enum Call {
            $($call,)*
        }

        impl Call {
            /// Every one of them, in the order of the table.
            pub const ALL: &[Call] = &[$(Call::$call,)*];

            /// Service and method.
            pub fn name(self) -> &'static str {
                match self {
                    $(Call::$call => $name,)*
                }
            }

            fn row(self) -> Row {
                use Rule::{Allowed, Denied, WithToken};
                // Every row uses some of the three.
                let _ = (Allowed, Denied, WithToken);
                match self {
                    $(Call::$call => Row { lmtp: $lmtp, imap: $imap, operator: $operator, node: $node },)*
                }
            }
        }
    };
}

struct Row {
    lmtp: Rule,
    imap: Rule,
    operator: Rule,
    node: Rule,
}

table! {
    //                                              lmtp    imap      operator node
    MailStream = "Mail.Call":                       Allowed Allowed   Denied   Denied,
    Deliver = "Mail.Deliver":                       Allowed Denied    Denied   Denied,
    Append = "Mail.Append":                         Denied  WithToken Denied   Denied,
    Store = "Mail.Store":                           Denied  WithToken Denied   Denied,
    Copy = "Mail.Copy":                             Denied  WithToken Denied   Denied,
    Expunge = "Mail.Expunge":                       Denied  WithToken Denied   Denied,
    MailboxChange = "Mail.MailboxChange":           Denied  WithToken Denied   Denied,
    MailboxList = "Mail.MailboxList":               Denied  WithToken Denied   Denied,
    MailboxOpen = "Mail.MailboxOpen":               Denied  WithToken Denied   Denied,
    Fetch = "Mail.Fetch":                           Denied  WithToken Denied   Denied,
    Changes = "Mail.Changes":                       Denied  WithToken Denied   Denied,
    ReadBody = "Mail.ReadBody":                     Denied  WithToken Denied   Denied,
    ReadBodies = "Mail.ReadBodies":                 Denied  WithToken Denied   Denied,
    AccountStatus = "Mail.AccountStatus":           Denied  WithToken Denied   Denied,
    AppendAll = "Mail.AppendAll":                   Denied  WithToken Denied   Denied,
    Annotations = "Mail.Annotations":               Denied  WithToken Denied   Denied,
    Grants = "Mail.Grants":                         Denied  WithToken Denied   Denied,
    Upload = "Mail.Upload":                         Allowed WithToken Denied   Denied,
    Download = "Mail.Download":                     Denied  WithToken Denied   Denied,
    Watch = "Mail.Watch":                           Denied  WithToken Denied   Denied,

    Resolve = "Directory.Resolve":                  Allowed Allowed   Allowed  Denied,
    Login = "Directory.Login":                      Denied  Allowed   Denied   Denied,
    // The token is the request itself: the service opens it.
    RenewToken = "Directory.RenewToken":            Denied  Allowed   Denied   Denied,
    // As RenewToken, for many.
    CheckLogins = "Directory.CheckLogins":          Denied  Allowed   Denied   Denied,
    // As RenewToken.
    Sharers = "Directory.Sharers":                  Denied  Allowed   Denied   Denied,
    AccountCreate = "Directory.AccountCreate":      Denied  Denied    Allowed  Denied,
    AccountShow = "Directory.AccountShow":          Denied  Denied    Allowed  Denied,
    AccountSet = "Directory.AccountSet":            Denied  Denied    Allowed  Denied,
    AddressAdd = "Directory.AddressAdd":            Denied  Denied    Allowed  Denied,
    AddressRemove = "Directory.AddressRemove":      Denied  Denied    Allowed  Denied,
    AppPasswordAdd = "Directory.AppPasswordAdd":    Denied  Denied    Allowed  Denied,
    AppPasswordRemove = "Directory.AppPasswordRemove": Denied Denied  Allowed  Denied,
    AppPasswordList = "Directory.AppPasswordList":  Denied  Denied    Allowed  Denied,
    Topology = "Directory.Topology":                Allowed Allowed   Allowed  Allowed,

    ClusterInit = "Cluster.Init":                   Denied  Denied    Allowed  Denied,
    NodeStatus = "Cluster.NodeStatus":              Denied  Denied    Allowed  Denied,
    NodeReplace = "Cluster.NodeReplace":            Denied  Denied    Allowed  Denied,
    NodeAdd = "Cluster.NodeAdd":                    Denied  Denied    Allowed  Denied,
    LeaderMove = "Cluster.LeaderMove":              Denied  Denied    Allowed  Denied,
    Checkpoint = "Cluster.Checkpoint":              Denied  Denied    Allowed  Denied,
    LayoutShow = "Cluster.LayoutShow":              Denied  Denied    Allowed  Denied,
    LayoutStage = "Cluster.LayoutStage":            Denied  Denied    Allowed  Denied,
    LayoutPlan = "Cluster.LayoutPlan":              Denied  Denied    Allowed  Denied,
    LayoutApply = "Cluster.LayoutApply":            Denied  Denied    Allowed  Denied,
    LayoutRevert = "Cluster.LayoutRevert":          Denied  Denied    Allowed  Denied,
    NodeStand = "Cluster.NodeStand":                Denied  Denied    Allowed  Denied,
    TaskList = "Cluster.TaskList":                  Denied  Denied    Allowed  Denied,
    TaskCancel = "Cluster.TaskCancel":              Denied  Denied    Allowed  Denied,

    SessionsAttend = "Sessions.Attend":             Denied  Allowed   Denied   Denied,
    SessionsShow = "Sessions.Show":                 Denied  Denied    Allowed  Denied,
    SessionsEnd = "Sessions.End":                   Denied  Denied    Allowed  Denied,

    PeerAppend = "Peer.Append":                     Denied  Denied    Denied   Allowed,
    PeerHeartbeat = "Peer.Heartbeat":               Denied  Denied    Denied   Allowed,
    PeerVote = "Peer.Vote":                         Denied  Denied    Denied   Allowed,
    PeerPreVote = "Peer.PreVote":                   Denied  Denied    Denied   Allowed,
    PeerTransferLeader = "Peer.TransferLeader":     Denied  Denied    Denied   Allowed,
    PeerPropose = "Peer.Propose":                   Denied  Denied    Denied   Allowed,
    PeerReadIndex = "Peer.ReadIndex":               Denied  Denied    Denied   Allowed,
    PeerSnapshot = "Peer.Snapshot":                 Denied  Denied    Denied   Allowed,
    PeerSendSnapshot = "Peer.SendSnapshot":         Denied  Denied    Denied   Allowed,
    PeerPutBodies = "Peer.PutBodies":               Denied  Denied    Denied   Allowed,
    PeerGetBody = "Peer.GetBody":                   Denied  Denied    Denied   Allowed,
    PeerReplica = "Peer.Replica":                   Denied  Denied    Denied   Allowed,
}

/// What the table says about this caller and this call.
pub fn rule(identity: &Identity, call: Call) -> Rule {
    let row = call.row();
    match identity {
        Identity::Node(_) => row.node,
        Identity::Operator { .. } => row.operator,
        Identity::Gateway { roles, .. } => {
            let lmtp = if roles.lmtp { row.lmtp } else { Rule::Denied };
            let imap = if roles.imap { row.imap } else { Rule::Denied };
            lmtp.max(imap)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Rule, rule};
    use crate::security::identity::{GatewayRoles, Identity};
    use malle_proto::NodeId;

    /// Written out a second time, by caller instead of by call: y allowed, t with a token, . denied.
    const EXPECTED: &str = "
                             none lmtp imap both oper node
        Mail.Call             .    y    y    y    .    .
        Mail.Deliver          .    y    .    y    .    .
        Mail.Append           .    .    t    t    .    .
        Mail.Store            .    .    t    t    .    .
        Mail.Copy             .    .    t    t    .    .
        Mail.Expunge          .    .    t    t    .    .
        Mail.MailboxChange    .    .    t    t    .    .
        Mail.MailboxList      .    .    t    t    .    .
        Mail.MailboxOpen      .    .    t    t    .    .
        Mail.Fetch            .    .    t    t    .    .
        Mail.Changes          .    .    t    t    .    .
        Mail.ReadBody         .    .    t    t    .    .
        Mail.ReadBodies       .    .    t    t    .    .
        Mail.AccountStatus    .    .    t    t    .    .
        Mail.AppendAll        .    .    t    t    .    .
        Mail.Annotations      .    .    t    t    .    .
        Mail.Grants           .    .    t    t    .    .
        Mail.Upload           .    y    t    y    .    .
        Mail.Download         .    .    t    t    .    .
        Mail.Watch            .    .    t    t    .    .
        Directory.Resolve     .    y    y    y    y    .
        Directory.Login       .    .    y    y    .    .
        Directory.RenewToken  .    .    y    y    .    .
        Directory.CheckLogins .    .    y    y    .    .
        Directory.Sharers     .    .    y    y    .    .
        Directory.AccountCreate . .    .    .    y    .
        Directory.AccountShow .    .    .    .    y    .
        Directory.AccountSet  .    .    .    .    y    .
        Directory.AddressAdd  .    .    .    .    y    .
        Directory.AddressRemove . .    .    .    y    .
        Directory.AppPasswordAdd . .   .    .    y    .
        Directory.AppPasswordRemove . . .   .    y    .
        Directory.AppPasswordList . .  .    .    y    .
        Directory.Topology    .    y    y    y    y    y
        Cluster.Init          .    .    .    .    y    .
        Cluster.NodeStatus    .    .    .    .    y    .
        Cluster.NodeReplace   .    .    .    .    y    .
        Cluster.NodeAdd       .    .    .    .    y    .
        Cluster.LeaderMove    .    .    .    .    y    .
        Cluster.Checkpoint    .    .    .    .    y    .
        Cluster.LayoutShow    .    .    .    .    y    .
        Cluster.LayoutStage   .    .    .    .    y    .
        Cluster.LayoutPlan    .    .    .    .    y    .
        Cluster.LayoutApply   .    .    .    .    y    .
        Cluster.LayoutRevert  .    .    .    .    y    .
        Cluster.NodeStand     .    .    .    .    y    .
        Cluster.TaskList      .    .    .    .    y    .
        Cluster.TaskCancel    .    .    .    .    y    .
        Sessions.Attend       .    .    y    y    .    .
        Sessions.Show         .    .    .    .    y    .
        Sessions.End          .    .    .    .    y    .
        Peer.Append           .    .    .    .    .    y
        Peer.Heartbeat        .    .    .    .    .    y
        Peer.Vote             .    .    .    .    .    y
        Peer.PreVote          .    .    .    .    .    y
        Peer.TransferLeader   .    .    .    .    .    y
        Peer.Propose          .    .    .    .    .    y
        Peer.ReadIndex        .    .    .    .    .    y
        Peer.Snapshot         .    .    .    .    .    y
        Peer.SendSnapshot     .    .    .    .    .    y
        Peer.PutBodies        .    .    .    .    .    y
        Peer.GetBody          .    .    .    .    .    y
        Peer.Replica          .    .    .    .    .    y
    ";

    fn callers() -> [Identity; 6] {
        let gateway = |lmtp, imap| Identity::Gateway {
            name: "front".into(),
            roles: GatewayRoles { lmtp, imap },
        };
        [
            gateway(false, false),
            gateway(true, false),
            gateway(false, true),
            gateway(true, true),
            Identity::Operator { name: "anna".into() },
            Identity::Node(NodeId(1)),
        ]
    }

    #[test]
    fn every_cell_is_as_written_out() {
        let rows: Vec<Vec<&str>> = EXPECTED
            .lines()
            .map(|line| line.split_whitespace().collect())
            .filter(|row: &Vec<&str>| row.len() == 7)
            .collect();
        assert_eq!(rows.len(), Call::ALL.len());
        for (row, call) in rows.iter().zip(Call::ALL) {
            assert_eq!(row[0], call.name());
            for (cell, caller) in row[1..].iter().zip(callers()) {
                let expected = match *cell {
                    "y" => Rule::Allowed,
                    "t" => Rule::WithToken,
                    "." => Rule::Denied,
                    other => panic!("{other}"),
                };
                assert_eq!(rule(&caller, *call), expected, "{caller:?} {}", call.name());
            }
        }
    }

    #[test]
    fn every_method_of_every_service_is_in_the_table() {
        let contract = [
            ("Mail", include_str!("../../../proto/malle/v1/mail.proto")),
            ("Directory", include_str!("../../../proto/malle/v1/cluster.proto")),
            ("Cluster", include_str!("../../../proto/malle/v1/cluster.proto")),
            ("Sessions", include_str!("../../../proto/malle/v1/cluster.proto")),
            ("Peer", include_str!("../../../proto/malle/v1/peer.proto")),
        ];
        let mut methods = 0;
        for (service, file) in contract {
            let body = file.split(&format!("service {service} {{")).nth(1).unwrap();
            let body = body.split("\n}").next().unwrap();
            for line in body.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
                let name = format!("{service}.{}", line.split('(').next().unwrap());
                assert!(Call::ALL.iter().any(|call| call.name() == name), "{name}");
                methods += 1;
            }
        }
        let requests = include_str!("../../../proto/malle/v1/mail.proto");
        let requests = requests.split("oneof call {").nth(1).unwrap();
        for line in requests.split('}').next().unwrap().lines() {
            if let Some(kind) = line.split_whitespace().next() {
                assert!(
                    Call::ALL.iter().any(|call| call.name() == format!("Mail.{kind}")),
                    "{kind}"
                );
                methods += 1;
            }
        }
        assert_eq!(
            methods,
            Call::ALL.len(),
            "the table names something that no service has"
        );
    }
}
