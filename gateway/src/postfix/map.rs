//! socketmap, as sendmail defined it and Postfix speaks it (socketmap_table(5)): netstrings with a map's name and a key, answered by OK and a
//! value, NOTFOUND, or TEMP when it is not known.
//!
//! | map | key | value |
//! |---|---|---|
//! | `recipient` | an address | the primary address of its account: `virtual_mailbox_maps`, `local_recipient_maps` |
//! | `login` | an address | the same, unless the account is suspended: `smtpd_sender_login_maps` |
//!
//! A detail behind `+` in a local part does not count. A recipient that is suspended is still one: LMTP answers for it what may be answered.

use std::io;

use malle_client::Error;
use malle_proto::limits;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::{Context, IDLE, Store, WRITE, stopped};

/// A map's name, a blank, and an address.
const QUERY_MAX_BYTES: usize = limits::ADDRESS_MAX_BYTES + 64;

/// Answers one connection until it ends.
pub async fn serve<IO, S>(io: IO, mut context: Context<S>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Store,
{
    tokio::select! {
        () = stopped(&mut context.stop) => {}
        ended = answer_all(io, &context.store) => if let Err(error) = ended {
            tracing::info!(%error, "a client of the maps was left");
        },
    }
}

async fn answer_all<IO, S>(io: IO, store: &S) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Store,
{
    let mut io = BufReader::with_capacity(QUERY_MAX_BYTES, io);
    while let Some(query) = timeout(IDLE, read_netstring(&mut io)).await?? {
        let answer = answer(store, &query).await;
        let said = format!("{}:{answer},", answer.len());
        timeout(WRITE, async {
            let stream = io.get_mut();
            stream.write_all(said.as_bytes()).await?;
            stream.flush().await
        })
        .await??;
    }
    Ok(())
}

async fn answer<S: Store>(store: &S, query: &[u8]) -> String {
    let query = std::str::from_utf8(query).ok();
    let Some((map, key)) = query.and_then(|query| query.split_once(' ')) else {
        return "PERM want the name of a map and a key".to_owned();
    };
    let suspended_counts = match map {
        "recipient" => true,
        "login" => false,
        _ => return "PERM the maps here are recipient and login".to_owned(),
    };
    // Postfix also asks for a domain, and for an address without its domain: those are no accounts.
    let is_address = key
        .split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if !is_address {
        return "NOTFOUND ".to_owned();
    }
    match store.resolve(&without_detail(key)).await {
        Ok(Some(found)) if suspended_counts || !found.suspended => format!("OK {}", found.primary_address),
        Ok(_) | Err(Error::Invalid(_)) => "NOTFOUND ".to_owned(),
        Err(error) => {
            tracing::warn!(%error, "a map could not be looked up");
            "TEMP the directory does not answer".to_owned()
        }
    }
}

/// `user+detail@domain` is the user's (RFC 5233), as LMTP takes it. Postfix asks for the whole address only, whatever its `recipient_delimiter`.
fn without_detail(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => match local.split_once('+') {
            Some((user, _)) if !user.is_empty() => format!("{user}@{domain}"),
            _ => address.to_owned(),
        },
        None => address.to_owned(),
    }
}

/// `length:bytes,`; `None` at the end of the stream.
async fn read_netstring(io: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = Vec::new();
    io.take(8).read_until(b':', &mut length).await?;
    if length.is_empty() {
        return Ok(None);
    }
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let digits = length
        .strip_suffix(b":")
        .filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let digits = digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .ok_or_else(wrong)?;
    let length: usize = digits.parse().map_err(|_| wrong())?;
    if length > QUERY_MAX_BYTES {
        return Err(wrong());
    }
    let mut bytes = vec![0; length + 1];
    io.read_exact(&mut bytes).await?;
    if bytes.pop() == Some(b',') {
        Ok(Some(bytes))
    } else {
        Err(wrong())
    }
}
