//! Every bound in the system, one constant each, with its reason. Units come last in a name.

// --- messages and bodies ---------------------------------------------------------------------------------------------

/// Largest mail accepted: what the ministry's relays accept today; advertised as SIZE (RFC 1870) and APPENDLIMIT.
pub const MESSAGE_MAX_BYTES: usize = 50 * 1024 * 1024;
/// A body up to this rides inside its request on the multiplexed stream; a larger one is uploaded on a stream of its own, so
/// that it never delays the small requests behind it.
pub const INLINE_BODY_MAX_BYTES: usize = 256 * 1024;
/// One frame of a body stream: large enough for throughput, small enough to interleave.
pub const BODY_CHUNK_BYTES: usize = 256 * 1024;
/// Largest gRPC message on any service: an inline body with room for its envelope. tonic's own default is 4 MiB.
pub const GRPC_MESSAGE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// A summary (envelope and structure) above this is stored beside its body, so that a row stays small.
pub const INLINE_SUMMARY_MAX_BYTES: usize = 4 * 1024;
/// Deepest multipart nesting that a summary describes; deeper parts are shown as one leaf. Legitimate mail stays below 10.
pub const MIME_DEPTH_MAX: usize = 32;
/// Most parts that a summary describes; the rest is shown as part of the last one.
pub const MIME_PARTS_MAX: usize = 1000;
/// An encoded summary stays below this, whatever the mail: a page of a fetch holds several.
pub const SUMMARY_MAX_BYTES: usize = 1024 * 1024;
/// Longest text of one header field or parameter in a summary; the rest is cut. Long enough for every honest subject and file name.
pub const SUMMARY_TEXT_MAX_BYTES: usize = 8 * 1024;
/// Most addresses of one header field in a summary; the mail itself keeps them all.
pub const SUMMARY_ADDRESSES_MAX: usize = 500;
/// Most parameters of one Content-Type or Content-Disposition in a summary. RFC 2231 splits a long file name into several.
pub const SUMMARY_PARAMETERS_MAX: usize = 100;
/// RFC 8970 4: a preview is at most this long, in characters.
pub const PREVIEW_MAX_CHARS: usize = 200;

// --- accounts and mailboxes ------------------------------------------------------------------------------------------

/// Quota of a new account: the ministry's 20 GB an agent.
pub const DEFAULT_QUOTA_BYTES: u64 = 20 * 1024 * 1024 * 1024;
/// Most mailboxes of an account: listing them stays one answer.
pub const MAILBOXES_PER_ACCOUNT_MAX: usize = 10_000;
/// Longest full mailbox name, in bytes of UTF-8.
pub const MAILBOX_NAME_MAX_BYTES: usize = 1000;
/// Deepest mailbox tree.
pub const MAILBOX_DEPTH_MAX: usize = 32;
/// Most keywords that one mailbox ever saw; RFC 9051 lets a server refuse more.
pub const KEYWORDS_PER_MAILBOX_MAX: usize = 256;
/// Most keywords on one message.
pub const KEYWORDS_PER_MESSAGE_MAX: usize = 64;
/// Longest keyword.
pub const KEYWORD_MAX_BYTES: usize = 128;
/// Most messages that one command touches; a longer set is split into several commands, so that a command stays short to apply.
pub const MESSAGES_PER_COMMAND_MAX: usize = 500;
/// Most ranges of one UID set in a command.
pub const UID_RANGES_PER_COMMAND_MAX: usize = 2_000;
/// Most messages of one APPEND (RFC 3502): with their summaries they fit into one raft entry.
pub const APPENDS_PER_COMMAND_MAX: usize = 50;
/// Summaries that ride in the entry of one APPEND together; the rest lie beside their bodies. Half of `RAFT_ENTRY_MAX_BYTES`.
pub const APPEND_SUMMARIES_INLINE_MAX_BYTES: usize = 32 * 1024;
/// Most entries of METADATA (RFC 5464) of one mailbox, and of the account itself: they are scanned whole.
pub const ANNOTATIONS_PER_MAILBOX_MAX: usize = 100;
/// Longest name of such an entry.
pub const ANNOTATION_ENTRY_MAX_BYTES: usize = 256;
/// Longest value: RFC 5464 4.3 asks for 1024 at least; it is kept in a row.
pub const ANNOTATION_VALUE_MAX_BYTES: usize = 8 * 1024;
/// Rows of METADATA of one account together, what was taken away and is still remembered included: they are no part of its quota, and a command
/// that sets one looks at all.
pub const ANNOTATIONS_PER_ACCOUNT_MAX_BYTES: usize = 1024 * 1024;
/// Values of one command together: it fits into one raft entry.
pub const ANNOTATIONS_PER_COMMAND_MAX_BYTES: usize = 32 * 1024;
/// Most recipients of one deliver command (one shard).
pub const RECIPIENTS_PER_COMMAND_MAX: usize = 100;
/// Most recipients of one LMTP transaction; RFC 5321 4.5.3.1.8 asks for 100 at least.
pub const RECIPIENTS_PER_TRANSACTION_MAX: usize = 1_000;
/// Most rows in one page of a fetch or of changes.
pub const FETCH_PAGE_ROWS_MAX: usize = 500;
/// Most bytes in one page of a fetch, but for a single message that is larger: with the largest summary on top it stays below
/// `GRPC_MESSAGE_MAX_BYTES`.
pub const FETCH_PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most References that a thread search looks at.
pub const THREAD_REFERENCES_MAX: usize = 10;
/// Expunge tombstones kept per mailbox; a client whose state is older gets the whole UID list instead.
pub const TOMBSTONES_PER_MAILBOX_MAX: usize = 100_000;
/// Most UIDs of expunged messages that one page of changes looks at: a few kilobytes as ranges in any real case.
pub const VANISHED_PAGE_MAX: usize = 10_000;
/// Messages of deleted mailboxes that one command of the account takes away beside its own work; a sweep command takes
/// `MESSAGES_PER_COMMAND_MAX`.
pub const DOOMED_MESSAGES_PER_COMMAND: usize = 100;
/// Longest outcome that a receipt keeps, in bytes as estimated while it grows: with it a receipt stays below `ROW_VALUE_MAX_BYTES`.
pub const OUTCOME_MAX_BYTES: usize = 12 * 1024;

// --- receipts (decision 6) -------------------------------------------------------------------------------------------

/// A delivery is remembered as long as MTAs retry.
pub const DELIVERY_RECEIPT_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// An interactive operation is retried within its caller's deadline, minutes at most.
pub const INTERACTIVE_RECEIPT_KEPT_MS: u64 = 15 * 60 * 1000;
/// Most interactive receipts of an account: the oldest goes first.
pub const INTERACTIVE_RECEIPTS_PER_ACCOUNT_MAX: usize = 4_096;
/// Most receipts of one guest in an account (RFC 4314): his oldest goes first, and nobody else's. What a session has under way at once, many times
/// over; an account has so many for each account that it has granted something to.
pub const GUEST_RECEIPTS_MAX: u64 = 256;
/// Expired receipts removed by one command of the account: twice what a command adds, so the store drains.
pub const RECEIPTS_EXPIRED_PER_COMMAND: usize = 8;
/// Replicated time jumps at most this far per command (decision 5).
pub const CLOCK_STEP_MAX_MS: u64 = 3600 * 1000;

// --- directory -------------------------------------------------------------------------------------------------------

/// RFC 5321 4.5.3.1.3: a path has 256 octets with its brackets.
pub const ADDRESS_MAX_BYTES: usize = 254;
/// A client believes where an address led for this long: an agent's new mail finds them, and a removed address stops, within half a minute.
pub const ADDRESS_REMEMBERED_MS: u64 = 30_000;
/// A removed address goes to no other account for this long: every memory of it is over, also that of a gateway that stood still for a while.
pub const ADDRESS_RESTS_MS: u64 = 3600 * 1000;
/// Who had an address is forgotten after this long: far behind its rest, so that a few commands with a clock that is ahead forget none.
pub const ADDRESS_FORMER_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
const _: () = assert!(ADDRESS_RESTS_MS >= 100 * ADDRESS_REMEMBERED_MS);
/// Addresses that a client remembers: a gateway's busy ones; about 20 MiB.
pub const CLIENT_ADDRESSES_MAX: usize = 100_000;
/// Most addresses of one account.
pub const ADDRESSES_PER_ACCOUNT_MAX: usize = 200;
/// Most lines of an account's address history; the oldest goes first. A move every month fills it in 25 years.
pub const ADDRESS_EVENTS_PER_ACCOUNT_MAX: u64 = 1_000;
/// Most receipts of the directory: 15 minutes of 1,000 operations a second, an import's pace; the oldest goes first.
pub const DIRECTORY_RECEIPTS_MAX: u64 = 900_000;
/// Most nodes ever: the topology stays one answer.
pub const NODES_MAX: usize = 1_000;
/// Most shards, and the highest shard id: the topology stays one answer.
pub const SHARDS_MAX: usize = 10_000;
/// Most voters of a shard: five survive two losses, two more for a change under way.
pub const REPLICAS_PER_SHARD_MAX: usize = 7;
/// Largest weight of a node: the largest machine of a cluster has a thousand times the disk of the smallest, not more.
pub const NODE_WEIGHT_MAX: u32 = 1_000;
/// Nodes of which one command changes the layout: with names of regions and zones it stays well below an entry's 64 KiB.
pub const ROLES_PER_COMMAND_MAX: usize = 100;
/// Layouts of which the history is kept: years of changes, one answer.
pub const LAYOUTS_KEPT: usize = 100;
/// A node that is silent for so long is dead, unless the layout says otherwise: a machine reboots and a switch is replaced in less.
pub const REBUILD_AFTER_MS: u64 = 10 * 60 * 1000;
/// The least that a layout may say: below it an election of the directory would look like a death.
pub const REBUILD_AFTER_MIN_MS: u64 = 5 * 1000;
/// The most that a layout may say: who waits longer for a second replica wants to decide it himself, and says never.
pub const REBUILD_AFTER_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
/// A node that has not answered the directory's leader for so long is silent: it is given nothing new.
pub const NODE_SILENT_MS: u64 = 5 * 1000;
/// Moves of replicas that the directory's leader has under way at once. Each copies at the pace of a disk, to the cost of mail on the
/// nodes between which it goes; one alone would stand still behind a slow one.
pub const MOVES_AT_ONCE: usize = 2;
/// Bodies of one replica that is copied to a node, by the second: half of what a plain disk gives, so that mail has the other half.
pub const COPY_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// Moves that may be under way at all.
pub const TASKS_RUNNING_MAX: usize = 64;
/// Moves that are over and still shown: a node of 64 replicas that came and went, several times.
pub const TASKS_KEPT: usize = 500;
/// Longest password that is hashed: longer input costs CPU and adds nothing.
pub const PASSWORD_MAX_BYTES: usize = 1024;
/// Longest access token of an identity provider: those with many groups in them have some kilobytes.
pub const BEARER_TOKEN_MAX_BYTES: usize = 16 * 1024;
/// Largest file of an identity provider's keys: a few dozen of them.
pub const JWKS_MAX_BYTES: u64 = 256 * 1024;
/// The keys are fetched anew this often where they come by HTTPS: providers announce a new key hours before they sign with it.
pub const JWKS_REFRESH_MS: u64 = 5 * 60 * 1000;
/// A failed fetch is tried again after this long, doubling up to the refresh; and no two fetches are closer, whatever tokens people show.
pub const JWKS_RETRY_MS: u64 = 15 * 1000;
/// One fetch: dialling, asking and reading.
pub const JWKS_FETCH_MS: u64 = 10 * 1000;
/// Argon2id runs at the same time on one node: each takes 19 MiB and one core.
pub const PASSWORD_CHECKS_AT_ONCE: usize = 2;
/// Password checks that wait for a place; one more is answered Busy.
pub const PASSWORD_CHECKS_WAITING_MAX: usize = 64;
/// Application passwords of one account: one for each of a person's programs, and some.
pub const APP_PASSWORDS_PER_ACCOUNT_MAX: usize = 32;
/// Longest name of one.
pub const APP_PASSWORD_NAME_MAX_BYTES: usize = 64;
/// Shortest secret of one: it is drawn, and kept under a quick hash because of its 100 bits.
pub const APP_PASSWORD_MIN_BYTES: usize = 20;
/// A login token lives this long; the gateway renews it while the session lasts.
pub const TOKEN_LIFETIME_MS: u64 = 3600 * 1000;
/// Whether what opened an account still holds is looked at again after this long, by gateways for their sessions and by nodes for tokens:
/// what is revoked is over within a minute, also where one look fails.
pub const LOGIN_CHECK_MS: u64 = 20 * 1000;
/// Logins that one question is about: some three rows each, read in one go.
pub const LOGINS_PER_CHECK_MAX: usize = 500;
/// Logins that a node remembers as looked at: 40 bytes each. Beyond it they are looked at sooner.
pub const LOGINS_CHECKED_MAX: usize = 100_000;
/// Gateways that attend one node: a large platform has some dozens in all.
pub const GATEWAYS_PER_NODE_MAX: usize = 256;
/// Questions about sessions on their way to one gateway; a gateway that takes none is told of as silent.
pub const SESSIONS_QUESTIONS_MAX: usize = 16;
/// A gateway answers from its memory: one that needs longer is told of as silent.
pub const SESSIONS_ANSWER_MS: u64 = 3 * 1000;
/// Sessions in one answer: what an account may have at one gateway, and more than a person reads.
pub const SESSIONS_PER_ANSWER_MAX: usize = 1_000;
/// Clocks of two nodes may differ by this much when a token is checked.
pub const CLOCK_SKEW_MS: u64 = 30 * 1000;

// --- raft, journal, index --------------------------------------------------------------------------------------------

/// A body up to this rides to the followers with the entry that names it; a larger one goes ahead of its entry, so that the entries
/// behind it do not wait for it.
pub const RIDER_MAX_BYTES: usize = 64 * 1024;
/// Riders of one entry together: with the entry they are far below `APPEND_REQUEST_MAX_BYTES`, so that no request exceeds it.
pub const RIDERS_PER_ENTRY_MAX_BYTES: usize = 512 * 1024;
/// Riders of applied entries that a leader keeps in memory for followers that lag: a few append requests of them. A follower that is
/// further behind fetches the bodies.
pub const RIDERS_KEPT_BYTES: usize = 4 * 1024 * 1024;
/// A raft entry stays below this, so that a heartbeat never waits behind one (decision 4).
pub const RAFT_ENTRY_MAX_BYTES: usize = 64 * 1024;
/// Entries of one append request with their riders, in bytes.
pub const APPEND_REQUEST_MAX_BYTES: usize = 1024 * 1024;
/// Append requests in flight to one follower of one group.
pub const APPEND_WINDOW_REQUESTS: usize = 32;
/// An append stream that has requests in flight and hears nothing this long is broken (raft.md pitfall 15).
pub const APPEND_SILENCE_MS: u64 = 2_000;
/// Proposals waiting or in flight in one shard; one more is answered Busy.
pub const PROPOSALS_PER_SHARD_MAX: usize = 1_024;
/// Body bytes that one node holds in memory for requests in flight; beyond it callers wait, then get Busy.
pub const BODY_BYTES_IN_FLIGHT_MAX: usize = 512 * 1024 * 1024;
/// Bytes of mail on the way into one shard: two of the largest and some, a quarter of a node's room, so that one shard under load leaves
/// the others theirs.
pub const BODY_BYTES_PER_SHARD_MAX: usize = 128 * 1024 * 1024;
/// A request waits this long for room in memory, then it is answered Busy.
pub const ROOM_WAIT_MS: u64 = 2_000;
/// One journal segment.
pub const JOURNAL_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// One volume segment.
pub const VOLUME_SEGMENT_BYTES: u64 = 256 * 1024 * 1024;
/// Every body is read again within this many days unless the configuration says otherwise: rot must be found while the peers' copies are
/// still good, and a month is what scrubs of file systems are used to.
pub const SCRUB_DAYS: u32 = 30;
/// The longest round that a configuration may ask for: a year in which a body is not looked at is no scrub.
pub const SCRUB_DAYS_MAX: u32 = 365;
/// The scrub is not slower than this: a small node is read in an hour, and a disk does not feel it.
pub const SCRUB_BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;
/// The scrub is not faster than this, even if a round then takes longer than its days: a quarter of what one rotating disk reads in order.
pub const SCRUB_BYTES_PER_SECOND_MAX: u64 = 32 * 1024 * 1024;
/// What reading one body costs beside its bytes: small bodies cost a seek, not their length.
pub const SCRUB_BYTES_PER_READ: u64 = 4 * 1024;
/// Names that the scrub and collection hold at a time, and rows that they look at in one go: apply waits for so many at most.
pub const SCRUB_PAGE: usize = 256;
/// Bodies that seem to be absent are gathered up to this many, looked at again together, and then fetched.
pub const SCRUB_ABSENT_MAX: usize = 4_096;
/// The scrub adds no more to what a group misses beyond this, until peers have given some of it: 10,000 names are a megabyte.
pub const SCRUB_MISSING_MAX: usize = 10_000;
/// Bodies whose repair the scrub follows; of more it knows only that the group misses them.
pub const SCRUB_REPAIRS_FOLLOWED_MAX: usize = 100_000;
/// A body that nothing names is released after this long: longer than an upload is remembered, so that a front end which is slow with its
/// command need not send the bytes again.
pub const BODY_IDLE_MS: u64 = 3600 * 1000;
/// Released bodies are freed no sooner than this: what went wrong by a mistake of ours is still on the disks for a day.
pub const BODY_RELEASED_MS: u64 = 24 * 3600 * 1000;
/// The row of a released body goes after this long: a replica that was away for two days finds it still there.
pub const BODY_FORGOTTEN_MS: u64 = 3 * 24 * 3600 * 1000;
/// Pause between two rounds of collection over the rows and bodies of a node: about 1 % of a core for ten million bodies.
pub const COLLECT_EVERY_MS: u64 = 6 * 3600 * 1000;
/// Pause between two looks at how much of the volumes is garbage.
pub const COLLECT_LOOK_MS: u64 = 10 * 60 * 1000;
/// Pause between two commands of collection: each keeps apply busy for some ten milliseconds.
pub const COLLECT_PAUSE_MS: u64 = 1_000;
/// Bodies of one command of collection: 17 KiB of the 64 that an entry may have.
pub const COLLECT_TOGETHER: usize = MESSAGES_PER_COMMAND_MAX;
/// Bodies without a row that are remembered from one round to the next; of more the next rounds learn.
pub const COLLECT_SUSPECTS_MAX: usize = 100_000;
/// A volume with so many hundredths of garbage is emptied: the disk holds at most twice what is needed, and each byte is written once more.
pub const COLLECT_GARBAGE_PERCENT: u64 = 50;
/// The same while the disk is nearly full: space is worth more writing then.
pub const COLLECT_GARBAGE_PERCENT_FULL: u64 = 30;
/// The disk is nearly full above this.
pub const DISK_FULL_PERCENT: u64 = 80;
/// At so many hundredths a node takes no mail from front ends and leads nothing that others can lead; two hundredths below it does again.
/// Twenty disks of this kind waste one.
pub const DISK_SHORT_PERCENT: u64 = 95;
/// The same with less room than so many volumes, whatever the disk's size: collection needs two, and bodies under way fill two more.
pub const DISK_SHORT_VOLUMES: u64 = 4;
/// At so many hundredths a node stores no body from anybody: what is left is for the log, the rows, checkpoints and collection.
pub const DISK_NONE_PERCENT: u64 = 98;
/// The same with less room than so many volumes.
pub const DISK_NONE_VOLUMES: u64 = 2;
const _: () = assert!(DISK_FULL_PERCENT < DISK_SHORT_PERCENT && DISK_SHORT_PERCENT < DISK_NONE_PERCENT);
/// With less room than this part of a volume (64 MiB) no group is opened: a database that meets the end of the disk is broken.
pub const DISK_ROWS_PART_OF_VOLUME: u64 = 4;
/// A front end that no majority has room for is told to come again after this long: space comes back in minutes at best, and a gateway
/// whose deadline is nearer gives its caller the answer at once.
pub const DISK_FULL_RETRY_MS: u64 = 120_000;
/// The same while another replica may take over the lead.
pub const DISK_SHORT_RETRY_MS: u64 = 1_000;
/// Collection carries no more than this out of a volume: half of what the scrub may read. The scrub's ceiling while the disk is nearly full.
pub const COLLECT_BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// Segments of the journal made at the first start, so that none is made under load.
pub const JOURNAL_POOL_SEGMENTS: usize = 2;
/// Segments of the journal that lie ready: what a node's log lives on while the disk takes nothing, a million commands.
pub const JOURNAL_RESERVE_SEGMENTS: usize = 3;
/// Live segments above this make the group that holds the oldest one let go of it: 1 GiB of log on a disk.
pub const JOURNAL_SEGMENTS_AIM: usize = 16;
/// Bytes that wait for the journal's writer; more wait outside it.
pub const JOURNAL_IN_FLIGHT_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that wait for the volumes' writer; a few of the largest bodies.
pub const VOLUME_IN_FLIGHT_MAX_BYTES: usize = 128 * 1024 * 1024;
/// What the journal's writer takes into one write and one sync.
pub const JOURNAL_BATCH_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Raft entries that a node keeps in memory so that replication and apply read no disk.
pub const LOG_CACHE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// The view is flushed after this many commands ...
pub const VIEW_FLUSH_COMMANDS: usize = 1_000;
/// ... or this long, whichever comes first (decision 2).
pub const VIEW_FLUSH_MS: u64 = 50;
/// A checkpoint is due after this many bytes of log, once they have paid for it.
pub const CHECKPOINT_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// What a byte of log pays for: 64 MiB of log cause at most 128 MiB of checkpoints.
pub const CHECKPOINT_BYTES_PER_LOG_BYTE: u64 = 2;
/// A checkpoint is due after this many times as much log, paid for or not: 256 MiB, that a start may have to apply.
pub const CHECKPOINT_LOG_TIMES_MAX: u64 = 4;
/// A checkpoint is due at this age if anything was written, up to a quarter earlier.
pub const CHECKPOINT_AGE_MS: u64 = 24 * 3600 * 1000;
/// Deltas behind one base: a start opens every one of them, and reads them all when it must rebuild.
pub const CHECKPOINT_DELTAS_MAX: usize = 64;
/// A checkpoint is due when the keys that changed since the last one take this much memory: some 200,000 of them ...
pub const CHECKPOINT_KEYS_BYTES: usize = 4 * 1024 * 1024;
/// ... and at this they are given up and a base is written instead: 64 shards hold half a gigabyte at the worst.
pub const CHECKPOINT_KEYS_MAX_BYTES: usize = 2 * CHECKPOINT_KEYS_BYTES;
/// Checkpoints that one node writes at the same time: each scans a view and fills a disk's queue.
pub const CHECKPOINTS_AT_ONCE: usize = 2;
/// Log kept behind a checkpoint so that a node that was away for a while catches up without a snapshot.
pub const LOG_KEPT_ENTRIES: u64 = 20_000;
/// Groups of one node: each holds a sled database with its thread and file (storage.md guard rail 9).
pub const GROUPS_PER_NODE_MAX: usize = 200;
/// A view is copied into a fresh database when its own takes more than this many times its rows: a fresh one takes 2.2 times ...
pub const VIEW_COMPACT_TIMES: u64 = 4;
/// ... and this much at least: below it there is nothing to gain.
pub const VIEW_COMPACT_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Rows copied in a second: 1 GiB of rows takes a minute, and the disk has most of its time for others.
pub const VIEW_COMPACT_BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// Room that a compaction leaves on the disk beside its copy: what log and checkpoints may need meanwhile.
pub const VIEW_COMPACT_BYTES_LEFT: u64 = 2 * 1024 * 1024 * 1024;
/// Views that one node compacts at the same time: each copy takes room, and a cache of its own.
pub const VIEW_COMPACTIONS_AT_ONCE: usize = 1;
/// Pause between two looks whether a view takes too much room: it grows over hours.
pub const VIEW_COMPACT_LOOK_MS: u64 = 10 * 60 * 1000;
/// Every row of a view is read again after this long: a week is soon enough that the log and the peers still have what a rebuild needs.
pub const VIEW_PROVE_EVERY_MS: u64 = 7 * 24 * 3600 * 1000;
/// The first time within this of a start, at a moment of its own for each view: a start after a clean stop reads none.
pub const VIEW_PROVE_FIRST_MS: u64 = 24 * 3600 * 1000;
/// Rows of one shard, beyond which the operator is told to make more shards (decision 12).
pub const ROWS_PER_SHARD_AIM: u64 = 5_000_000;
/// Rows of all replicas of one node, beyond which the operator is told to add nodes (decision 12).
pub const ROWS_PER_NODE_AIM: u64 = 50_000_000;
/// Broken views of one group that are kept for a person to look at: each is as large as the group's rows.
pub const VIEWS_SET_ASIDE_MAX: usize = 2;
/// Groups that a starting node opens side by side: each waits for some syncs of its own, and reads its database's page table.
pub const GROUPS_OPENED_AT_ONCE: usize = 8;
/// Longest row value in the index: sled writes pages above 128 KiB to files of their own (guard rail 9).
pub const ROW_VALUE_MAX_BYTES: usize = 16 * 1024;

// --- connections, retries --------------------------------------------------------------------------------------------

/// A TLS handshake takes at most this long, or the connection is closed.
pub const HANDSHAKE_MAX_MS: u64 = 10_000;
/// Handshakes that one listener has under way: strangers cost this much and no more.
pub const HANDSHAKES_AT_ONCE_MAX: usize = 1_024;
/// Bytes of bodies in one answer to who reads many.
pub const BODIES_PAGE_BYTES_MAX: usize = 256 * 1024;
/// Bodies read from the volumes at the same time for such an answer.
pub const BODIES_READ_AT_ONCE: usize = 8;
/// UID ranges that a node keeps in memory of the mailboxes that were opened last, 8 bytes each.
pub const OUTLINE_RANGES_MAX: usize = 4 * 1024 * 1024;
/// Connections that one listener holds.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Requests that one client stream may have in flight on a node.
pub const CALLS_PER_STREAM_MAX: usize = 1_024;
/// A request without a deadline of its own gets this one.
pub const DEFAULT_DEADLINE_MS: u64 = 30_000;
/// First pause before a client repeats a request; it doubles up to the largest.
pub const RETRY_FIRST_MS: u64 = 20;
/// Largest pause between two tries.
pub const RETRY_LARGEST_MS: u64 = 1_000;
/// Reaching a node and shaking hands takes a client at most this long; then it asks the next replica.
pub const CONNECT_MAX_MS: u64 = 2_000;
/// HTTP/2 flow control per stream: a body chunk and what is behind it never wait for a window (performance.md).
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 flow control per connection: two streams at full speed.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// A connection is pinged after this long without a frame, and is broken when the answer takes as long again.
pub const HTTP2_KEEPALIVE_MS: u64 = 5_000;
/// Accounts whose shard a client remembers: a gateway's busy ones; about 5 MiB.
pub const CLIENT_HOMES_MAX: usize = 100_000;
/// A client asks for the topology, and tries a node that was down, at most this often.
pub const ROUTE_REFRESH_MS: u64 = 1_000;
/// Shards that one delivery talks to at the same time.
pub const DELIVER_SHARDS_AT_ONCE: usize = 16;
/// A watch says at least this often that it lives.
pub const WATCH_HEARTBEAT_MS: u64 = 30_000;
/// Changes that wait for one slow watcher; beyond that it is told to look for itself.
pub const WATCH_QUEUE_MAX: usize = 1_024;
/// Longest IMAP or LMTP line without its literals.
pub const COMMAND_LINE_MAX_BYTES: usize = 64 * 1024;

// --- IMAP sessions ---------------------------------------------------------------------------------------------------

/// Longest literal that is not a message: names, search texts.
pub const IMAP_LITERAL_MAX_BYTES: usize = 64 * 1024;
/// Longest literal before login: only names and passwords travel there, and strangers send them.
pub const IMAP_LITERAL_BEFORE_LOGIN_MAX_BYTES: usize = 4 * 1024;
/// Lines and literals of one command together, without an appended message.
pub const IMAP_COMMAND_MAX_BYTES: usize = 512 * 1024;
/// Deepest parentheses of a command. The parser recurses, so this also bounds its stack.
pub const IMAP_NESTING_MAX: usize = 50;
/// Most elements of one list, sequence set or search of a command.
pub const IMAP_ITEMS_MAX: usize = 10_000;
/// After this many commands that make no sense the client is sent away.
pub const IMAP_BAD_COMMANDS_MAX: u32 = 20;
/// A stranger has this long for each command.
pub const IMAP_IDLE_BEFORE_LOGIN_MS: u64 = 60 * 1000;
/// RFC 3501 5.4 asks for 30 minutes at least.
pub const IMAP_IDLE_MS: u64 = 30 * 60 * 1000;
/// A command that has begun is complete after this long, plus what its literals take at the slowest upload.
pub const IMAP_COMMAND_TIME_MS: u64 = 60 * 1000;
/// An upload slower than this is given up: 50 MiB may take 3.6 hours.
pub const IMAP_SLOWEST_UPLOAD_BYTES_PER_SECOND: u64 = 4 * 1024;
/// A client that takes no byte of an answer for this long is gone.
pub const IMAP_WRITE_STALL_MS: u64 = 60 * 1000;
/// Answers are handed to the socket in pieces of this size.
pub const IMAP_OUTPUT_BYTES: usize = 64 * 1024;
/// During IDLE, a line this often keeps NAT entries and firewalls from forgetting the connection.
pub const IMAP_STILL_HERE_MS: u64 = 2 * 60 * 1000;
/// The pause after the first failed login of a session; it doubles up to the largest.
pub const IMAP_LOGIN_PAUSE_FIRST_MS: u64 = 1_000;
/// The largest pause after a failed login.
pub const IMAP_LOGIN_PAUSE_LARGEST_MS: u64 = 15_000;
/// Failed logins of one session.
pub const IMAP_LOGIN_FAILURES_MAX: u32 = 6;
/// Failed logins of an address or a name that slow nobody down: typing errors, and people behind one NAT.
pub const IMAP_LOGIN_FAILURES_FREE: u32 = 3;
/// Half of the failed logins of an address or name is forgotten after this long: a phone with an old password asks every few minutes.
pub const IMAP_LOGIN_FAILURES_HALVED_MS: u64 = 5 * 60 * 1000;
/// A login waits this long for its turn behind failed ones; it is refused when that would not be enough: clients give up after a minute.
pub const IMAP_LOGIN_WAIT_MAX_MS: u64 = 30 * 1000;
/// Addresses and names with failed logins that a gateway remembers, and as many pairs that logged in: some 10 MiB.
pub const IMAP_LOGINS_REMEMBERED_MAX: usize = 100_000;
/// A session that is ended from outside has this long to finish its command and say BYE; then its connection is closed.
pub const IMAP_LEAVE_MS: u64 = 5 * 1000;
/// IMAP sessions from one address at the same time unless the configuration says otherwise: an office behind one NAT.
pub const IMAP_SESSIONS_PER_ADDRESS_MAX: usize = 1_000;
/// IMAP sessions of one account at the same time unless the configuration says otherwise: five for each of a person's programs, and some.
pub const IMAP_SESSIONS_PER_ACCOUNT_MAX: usize = 100;
/// Messages of which one FETCH reads at the same time while it wants only headers or short pieces.
pub const IMAP_READS_AT_ONCE: usize = 8;
/// Messages that one SORT or THREAD orders: their keys are in memory at the same time, some 100 MiB at most.
pub const IMAP_SORT_MESSAGES_MAX: usize = 200_000;
/// A client that waits for a SEARCH is told this often how far it is.
pub const IMAP_PROGRESS_MS: u64 = 10 * 1000;
/// Message bytes that all IMAP sessions of a gateway hold in memory; beyond it they wait, then are told to come back.
pub const IMAP_BODY_BYTES_IN_MEMORY_MAX: usize = 512 * 1024 * 1024;
/// How long a session waits for its share of that memory.
pub const IMAP_MEMORY_WAIT_MS: u64 = 30 * 1000;
/// Accounts with which one mailbox is shared: a service of an office. Each is a row that CREATE copies to what is made below.
pub const GRANTS_PER_MAILBOX_MAX: usize = 100;
/// Accounts that share with one: its LIST asks the shard of each.
pub const SHARERS_PER_ACCOUNT_MAX: usize = 100;
