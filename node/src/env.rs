use std::sync::Arc;
pub trait Clock: Send + Sync {
    fn now_ms(&self) -> u64;
}
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}
impl Env {
    pub fn mailbox_id(&self) -> malle_proto::MailboxId {
        let mut b = [0; 16];
        self.entropy.fill(&mut b);
        malle_proto::MailboxId(b)
    }
}
