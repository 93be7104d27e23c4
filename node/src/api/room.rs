//! Room in memory for the bytes of requests and answers under way.
//!
//! Every body that a caller sends or asks for, and every page of rows, takes room before it is read and gives it back when it is sent
//! or stored. Whoever finds none waits a little and is then told to come again: a node under load stays up and says so.

use std::sync::Arc;
use std::time::Duration;

use malle_proto::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Refused;

/// What a caller who found no room is told to wait.
const BUSY_RETRY: Duration = Duration::from_millis(200);

/// Room of this node, shared by all its callers.
#[derive(Clone)]
pub(super) struct Room {
    /// In KiB: a permit counts in 32 bits.
    left: Arc<Semaphore>,
    bytes: usize,
    /// How long a caller waits for some.
    wait: Duration,
}

/// Room that is taken; dropping it gives it back.
pub(super) type Taken = OwnedSemaphorePermit;

impl Room {
    /// `limits::BODY_BYTES_IN_FLIGHT_MAX`, and `limits::ROOM_WAIT_MS` to wait for it.
    pub(super) fn of_a_node() -> Room {
        Room::new(
            limits::BODY_BYTES_IN_FLIGHT_MAX,
            Duration::from_millis(limits::ROOM_WAIT_MS),
        )
    }

    fn new(bytes: usize, wait: Duration) -> Room {
        Room {
            left: Arc::new(Semaphore::new(bytes / 1024)),
            bytes,
            wait,
        }
    }

    /// Bytes that are taken now.
    pub(super) fn taken_bytes(&self) -> u64 {
        (self.bytes as u64).saturating_sub(self.left.available_permits() as u64 * 1024)
    }

    /// Takes room for this many bytes.
    ///
    /// # Errors
    /// Busy when there is none for too long.
    pub(super) async fn take(&self, bytes: usize) -> Result<Taken, Refused> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        match malle_rt::timeout(self.wait, self.left.clone().acquire_many_owned(kib)).await {
            Ok(Ok(taken)) => Ok(taken),
            // Nobody closes the semaphore; were it closed, nothing could be taken in either.
            Ok(Err(_)) | Err(_) => Err(Refused::busy(BUSY_RETRY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use malle_proto::v1::ErrorCode;

    use super::Room;

    #[tokio::test]
    async fn who_finds_no_room_is_told_to_come_again_and_room_comes_back() {
        let room = Room::new(10 * 1024, Duration::from_millis(1));
        let taken = room.take(9 * 1024 + 1).await.unwrap();
        assert_eq!(room.taken_bytes(), 10 * 1024);
        let refused = room.take(1).await.unwrap_err();
        assert_eq!(refused.0.code(), ErrorCode::Busy);
        assert!(refused.0.retry_after_ms > 0);
        drop(taken);
        assert!(room.take(10 * 1024).await.is_ok());
        assert!(room.take(0).await.is_ok());
        assert_eq!(room.take(usize::MAX).await.unwrap_err().0.code(), ErrorCode::Busy);
    }
}
