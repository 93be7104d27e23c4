//! Views that are read again while mail comes in, sound ones and others.

use bytes::Bytes;
use tempfile::TempDir;

use super::super::compact::tests::{Mail, comes_back_rebuilt, some_row, whole};
use super::super::rebuild::append_and_apply;
use super::super::suite::open;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_view_is_proved_while_mail_comes_in_and_goes() {
    let dir = TempDir::new().unwrap();
    let (_logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 900).await;
    whole(&state).await;
    let mut between = 0;
    for _ in 0..5 {
        let proving = tokio::spawn({
            let state = state.clone();
            async move { state.prove_again().await }
        });
        while !proving.is_finished() {
            mail.arrives(&mut log, &state, 5).await;
            let marks = mail.entries(5, |sample| sample.flag(3, malle_machine::shard::Flags::SEEN));
            append_and_apply(&mut log, &state, marks).await;
            state.flush().await.unwrap();
            between += u64::from(state.inner.flushed.lock().await.proof.is_some());
        }
        proving.await.unwrap().unwrap();
    }
    assert!(between > 0, "no flush came between two steps, and nothing was shown");
    assert!(state.fault().borrow().is_none());
    whole(&state).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_lost_or_changed_is_found_while_the_view_serves_and_the_group_rebuilds_it() {
    for changed_to in [None, Some(Bytes::from_static(b"not what was written"))] {
        let dir = TempDir::new().unwrap();
        let (logs, mut log, state) = open(dir.path()).await;
        let mut mail = Mail::new();
        mail.arrives(&mut log, &state, 50).await;
        let digest = whole(&state).await;
        let index = state.live().index.clone();
        index.apply_batch(&[(some_row(&state), changed_to)]).unwrap();
        drop(index);
        assert!(matches!(state.prove_again().await, Err(ProofError::Damaged { .. })));
        comes_back_rebuilt(dir.path(), (logs, log, state), mail.next, digest).await;
    }
}

/// A change of a row that was read already and is damaged: the flush takes off what it finds, not what was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_behind_the_reading_is_found_when_a_flush_comes_over_it() {
    let dir = TempDir::new().unwrap();
    let (_logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 50).await;
    whole(&state).await;
    let mut proof = Proof::new();
    let index = state.live().index.clone();
    while proof.step(index.as_ref()).unwrap() > 0 {}
    let (digest, _, rows) = state.digest();
    assert_eq!((proof.digest, proof.rows), (digest, rows));
    let damaged = some_row(&state);
    let was = index.get(&damaged).unwrap().unwrap();
    index
        .apply_batch(&[(damaged.clone(), Some(Bytes::from_static(b"rot")))])
        .unwrap();
    let next = Rows::from([(damaged, Some(Bytes::from_static(b"next")))]);
    proof.follow(index.as_ref(), &next).unwrap();
    let (key, mut right) = (next.keys().next().unwrap(), digest);
    right.subtract(key, &was);
    right.add(key, b"next");
    assert_ne!(proof.digest, right, "what the position will say");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_due_within_a_day_of_a_start_and_a_week_after_each_proof() {
    let day = limits::VIEW_PROVE_FIRST_MS;
    for uuid in [[0; 16], [7; 16], [0xFF; 16]] {
        assert!((1_000..1_000 + day).contains(&first_due_ms(1_000, uuid)));
    }
    let dir = TempDir::new().unwrap();
    let (_logs, mut log, state) = open(dir.path()).await;
    Mail::new().arrives(&mut log, &state, 5).await;
    state.flush().await.unwrap();
    state.inner.proof_due_ms.store(0, Ordering::Relaxed);
    assert!(state.proof_is_due());
    state.prove_again().await.unwrap();
    let now_ms = state.inner.settings.env.now_ms();
    let due_ms = state.inner.proof_due_ms.load(Ordering::Relaxed);
    assert!(due_ms > now_ms + 6 * day && due_ms <= now_ms + limits::VIEW_PROVE_EVERY_MS);
    assert!(!state.proof_is_due());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_closes_does_not_wait_for_a_proof() {
    let dir = TempDir::new().unwrap();
    let (logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 600).await;
    let digest = whole(&state).await;
    let proving = tokio::spawn({
        let state = state.clone();
        async move { state.prove_again().await }
    });
    state.close().await.unwrap();
    let ended = proving.await.unwrap();
    assert!(matches!(ended, Ok(()) | Err(ProofError::GivenUp)), "{ended:?}");
    assert!(state.inner.flushed.lock().await.proof.is_none());
    drop((state, log));
    logs.journal().close().await;
    drop(logs);
    let (_logs, _log, state) = open(dir.path()).await;
    assert_eq!((state.rebuilds(), whole(&state).await), (0, digest));
}
