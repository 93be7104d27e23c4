pub mod error {
    use tonic::Status;
    pub fn peer_not_found(s: &str) -> Status {
        Status::not_found(s)
    }
    pub fn peer_failed(s: &str) -> Status {
        Status::internal(s)
    }
    pub fn peer_invalid(s: &str) -> Status {
        Status::invalid_argument(s)
    }
    pub fn peer_denied(s: &str) -> Status {
        Status::permission_denied(s)
    }
}
