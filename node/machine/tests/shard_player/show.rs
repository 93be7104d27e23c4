//! Commands that only look.

use malle_machine::shard::read::BodyStanding;
use malle_machine::shard::{SpecialUse, read};
use malle_machine::{Fault, Writes};
use malle_proto::{ModSeq, Uid};

use super::{ShardPlayer, modseq, names};
use crate::script_format::Line;

fn fault(fault: Fault) -> String {
    format!("fault: {fault}")
}

fn show_mailbox(mailbox: &read::Mailbox) -> String {
    let mut words = vec![mailbox.name.clone()];
    if mailbox.no_select {
        words.push("\\Noselect".into());
    } else {
        words.push(format!(
            "validity={} next={} highest={} messages={} unseen={} deleted={} bytes={}",
            mailbox.uid_validity,
            mailbox.uid_next,
            mailbox.highest_modseq,
            mailbox.messages,
            mailbox.unseen,
            mailbox.deleted,
            mailbox.size_bytes
        ));
    }
    if mailbox.special_use != SpecialUse::None {
        words.push(format!("\\{:?}", mailbox.special_use));
    }
    if mailbox.subscribed {
        words.push("subscribed".into());
    }
    words.join(" ")
}

impl ShardPlayer {
    pub fn show_account(&self, line: &mut Line) -> Result<String, String> {
        let account = read::account(&self.view, names::account(&line.word("an account")?)).map_err(fault)?;
        Ok(account.map_or_else(
            || "not here".into(),
            |account| {
                let suspended = if account.suspended { " suspended" } else { "" };
                format!(
                    "modseq={} used={}/{} messages={}{suspended}",
                    account.modseq, account.used_bytes, account.quota_bytes, account.messages
                )
            },
        ))
    }

    pub fn show_list(&self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        Ok(match read::mailboxes(&self.view, account).map_err(fault)? {
            Err(refusal) => format!("refused: {refusal}"),
            Ok(mailboxes) => mailboxes.iter().map(show_mailbox).collect::<Vec<_>>().join("\n"),
        })
    }

    /// annotations ACCOUNT NAME|- [since=MODSEQ]
    pub fn show_annotations(&self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let name = line.word("a name or -")?;
        let name = if name == "-" { "" } else { &name };
        let since = line.optional_number("since")?.map(ModSeq);
        let entries = match read::annotations(&self.view, account, name, since).map_err(fault)? {
            Err(refusal) => return Ok(format!("refused: {refusal}")),
            Ok(entries) if entries.is_empty() => return Ok("none".into()),
            Ok(entries) => entries,
        };
        let show = |one: &read::Annotation| {
            let value = one
                .value
                .as_ref()
                .map(|value| String::from_utf8_lossy(value).into_owned());
            format!(
                "{} modseq={} {}",
                one.entry,
                one.modseq,
                value.unwrap_or_else(|| "gone".into())
            )
        };
        Ok(entries.iter().map(show).collect::<Vec<_>>().join("\n"))
    }

    pub fn show_open(&self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let mailbox = self.mailbox_word(account, line, "a mailbox")?;
        Ok(match read::open(&self.view, account, mailbox, None).map_err(fault)? {
            Err(refusal) => format!("refused: {refusal}"),
            Ok(opened) => format!(
                "{}\nuids={} keywords={} unseen from {}",
                show_mailbox(&opened.mailbox),
                names::show_uids(&opened.outline.uids),
                if opened.keywords.is_empty() {
                    "none".into()
                } else {
                    opened.keywords.join(",")
                },
                opened
                    .outline
                    .first_unseen
                    .map_or_else(|| "none".into(), |uid: Uid| uid.to_string())
            ),
        })
    }

    /// fetch ACCOUNT MAILBOX UIDS [since=] [max=]
    pub fn show_fetch(&self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let mailbox = self.mailbox_word(account, line, "a mailbox")?;
        let uids = names::uids(&line.word("UIDs")?)?;
        let (since, max) = (modseq(line, "since")?, line.optional_number("max")?.unwrap_or(500));
        let page = match read::fetch(&self.view, account, mailbox, &uids, since, max).map_err(fault)? {
            Err(refusal) => return Ok(format!("refused: {refusal}")),
            Ok(page) => page,
        };
        let mut lines = Vec::new();
        for message in &page.messages {
            let single = read::message(&self.view, account, mailbox, message.uid).map_err(fault)?;
            if single.as_ref() != Some(message) {
                return Err(format!("UID {} alone is another message than in a page", message.uid));
            }
            lines.push(format!(
                "uid={} modseq={} {} body={} size={} date={}{:+} saved={} {} {}",
                message.uid,
                message.modseq,
                names::show_flags(&message.flags),
                names::body_name(message.body),
                message.size,
                message.internal_date.time_ms,
                message.internal_date.zone_minutes,
                message.save_date_ms,
                names::id_name(message.email_id.0),
                names::id_name(message.thread_id.0),
            ));
        }
        lines.push(
            page.resume_from
                .map_or_else(|| "end".into(), |uid| format!("more from {uid}")),
        );
        Ok(lines.join("\n"))
    }

    /// changes ACCOUNT MAILBOX since=MODSEQ [max=]
    pub fn show_changes(&self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let mailbox = self.mailbox_word(account, line, "a mailbox")?;
        let (since, max) = (modseq(line, "since")?, line.optional_number("max")?.unwrap_or(500));
        let changes = match read::changes(&self.view, account, mailbox, since, max).map_err(fault)? {
            Err(refusal) => return Ok(format!("refused: {refusal}")),
            Ok(changes) => changes,
        };
        let mut lines: Vec<String> = changes
            .changed
            .iter()
            .map(|one| {
                format!(
                    "uid={} modseq={} {}",
                    one.uid,
                    one.modseq,
                    names::show_flags(&one.flags)
                )
            })
            .collect();
        lines.push(format!(
            "vanished={} through={} of {}{}",
            names::show_uids(&changes.vanished),
            changes.through,
            changes.mailbox.highest_modseq,
            if changes.cannot_calculate {
                " cannot calculate"
            } else {
                ""
            }
        ));
        Ok(lines.join("\n"))
    }

    pub fn show_body(&self, line: &mut Line) -> Result<String, String> {
        let hash = names::body(&line.word("a body")?);
        Ok(match read::body_is_named(&self.view, hash).map_err(fault)? {
            true => "named".into(),
            false => "not named".into(),
        })
    }

    pub fn show_bodies(&self) -> Result<String, String> {
        let mut lines = Vec::new();
        let mut named = Vec::new();
        read::bodies(&self.view, &mut |hash, references, since| {
            if references > 0 {
                named.push(hash);
            }
            let waits = if references == 0 {
                format!(" waits since {since}")
            } else {
                String::new()
            };
            lines.push(format!("{} references={references}{waits}", names::body_name(hash)));
            Ok(())
        })
        .map_err(fault)?;
        // In pages it is the same, whatever their size.
        for most in 1..4 {
            let (mut paged, mut behind) = (Vec::new(), None);
            loop {
                let (page, next) = read::bodies_behind(&self.view, behind, most).map_err(fault)?;
                paged.extend(page);
                behind = next;
                if behind.is_none() {
                    break;
                }
            }
            if paged != named {
                return Err(format!("in pages of {most}: {paged:?}, whole: {named:?}"));
            }
        }
        lines.extend(self.released_bodies()?);
        Ok(if lines.is_empty() {
            "none".into()
        } else {
            lines.join("\n")
        })
    }

    /// Whatever is released, in pages of any size.
    fn released_bodies(&self) -> Result<Vec<String>, String> {
        let mut whole = None;
        for most in 1..4 {
            let (mut lines, mut behind) = (Vec::new(), None);
            loop {
                let (page, next) = read::idle_bodies_behind(&self.view, behind, most).map_err(fault)?;
                for (hash, standing) in page {
                    if let BodyStanding::Released { since_ms } = standing {
                        lines.push(format!("{} released since {since_ms}", names::body_name(hash)));
                    }
                }
                behind = next;
                if behind.is_none() {
                    break;
                }
            }
            if whole.get_or_insert_with(|| lines.clone()) != &lines {
                return Err(format!("in pages of {most}: {lines:?}, else {whole:?}"));
            }
        }
        Ok(whole.unwrap_or_default())
    }

    pub fn show_shard(&self) -> Result<String, String> {
        let to_sweep = read::accounts_to_sweep(&self.view, 10).map_err(fault)?;
        let to_sweep: Vec<String> = to_sweep.into_iter().map(names::account_name).collect();
        Ok(format!(
            "time={} epoch={} accounts={} through={} sweep={}",
            read::time_ms(&self.view).map_err(fault)?,
            read::body_epoch(&self.view).map_err(fault)?,
            read::account_count(&self.view).map_err(fault)?,
            read::accounts_through(&self.view).map_err(fault)?,
            if to_sweep.is_empty() {
                "none".into()
            } else {
                to_sweep.join(",")
            },
        ))
    }

    /// What the last command told the rooms around the machine.
    pub fn show_news(&self) -> Result<String, String> {
        let Writes {
            bodies_named,
            bodies_released,
            changes,
            rows,
        } = &self.news;
        let names = |hashes: &[malle_proto::BodyHash]| {
            hashes
                .iter()
                .map(|hash| names::body_name(*hash))
                .collect::<Vec<_>>()
                .join(",")
        };
        let mut lines = vec![format!(
            "named={} released={} rows={}",
            names(bodies_named),
            names(bodies_released),
            rows.len()
        )];
        lines.extend(changes.iter().map(|change| {
            let (account, mailbox) = (
                names::account_name(change.account),
                self.name_of(change.account, change.mailbox),
            );
            format!("{account} {mailbox} modseq={} tree={}", change.modseq, change.tree)
        }));
        Ok(lines.join("\n"))
    }
}
