pub fn caller_node<T>(_: &tonic::Request<T>) -> Result<malle_proto::NodeId, tonic::Status> {
    Err(tonic::Status::internal(""))
}
