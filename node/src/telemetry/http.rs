//! The listener for monitoring: `/health/live`, `/health/ready` and `/metrics` over plain HTTP/1.1.
//!
//! It is a port of its own without TLS, because what scrapes has no certificate of the cluster. Nothing secret stands there: no mail,
//! no address, no account, only names of shards and numbers; and nothing can be changed. Still it belongs on loopback or in the
//! operators' network. Everything is bounded: connections at a time, the head of a request, the time of a connection; one request
//! each, and a body is never read.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::health::Health;
use super::page::{self, Page};

/// Scrapers at a time: a monitoring system has a few; the next ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 16;
/// The head of a request. hyper takes no smaller bound.
const REQUEST_HEAD_MAX_BYTES: usize = 8 * 1024;
/// The head is there within this.
const REQUEST_HEAD_MAX: Duration = Duration::from_secs(5);
/// From accept to the last byte of the answer.
const CONNECTION_MAX: Duration = Duration::from_secs(15);
/// After the system refused a connection for lack of something, it is asked again no sooner.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers: the part of a process that knows all its rooms.
#[async_trait]
pub trait Observed: Send + Sync + 'static {
    /// Whether it lives and is ready.
    async fn health(&self) -> Health;
    /// Every figure.
    async fn page(&self) -> Page;
}

/// Serves until `stop` becomes true.
pub async fn serve(listener: TcpListener, observed: Arc<dyn Observed>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            // The sender lives as long as the node: an error means that it is gone, too.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, place)) => {
                malle_rt::spawn(converse(stream, observed.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for monitoring");
                malle_rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn converse(stream: TcpStream, observed: Arc<dyn Observed>, _place: OwnedSemaphorePermit) {
    let service = service_fn(move |request| {
        let observed = observed.clone();
        async move { Ok::<_, Infallible>(answer(&request, observed.as_ref()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_MAX)
        .max_buf_size(REQUEST_HEAD_MAX_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match malle_rt::timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for monitoring broke"),
        Err(_) => tracing::debug!("a connection for monitoring took too long"),
    }
}

async fn answer(request: &Request<Incoming>, observed: &dyn Observed) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return response(StatusCode::METHOD_NOT_ALLOWED, plain, "GET\n".into());
    }
    let of_health = |ok| {
        if ok {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    match request.uri().path() {
        "/health/live" => {
            let health = observed.health().await;
            response(of_health(health.is_live()), "application/json", health.live_json())
        }
        "/health/ready" => {
            let health = observed.health().await;
            response(of_health(health.is_ready()), "application/json", health.ready_json())
        }
        "/metrics" => match observed.page().await.into_text() {
            Ok(text) => response(StatusCode::OK, page::CONTENT_TYPE, text),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, plain, format!("{error}\n")),
        },
        _ => response(
            StatusCode::NOT_FOUND,
            plain,
            "/health/live /health/ready /metrics\n".into(),
        ),
    }
}

fn response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    let never = header::HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Sick;

    #[async_trait]
    impl Observed for Sick {
        async fn health(&self) -> Health {
            Health {
                unready: vec!["no leader".into()],
                ..Health::default()
            }
        }

        async fn page(&self) -> Page {
            let mut page = Page::default();
            page.gauge("malle_up", "Up", [(Vec::new(), 1.0)]);
            page
        }
    }

    async fn started() -> (SocketAddr, watch::Sender<bool>, malle_rt::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        (address, stop, malle_rt::spawn(serve(listener, Arc::new(Sick), stopped)))
    }

    /// Sends bytes and reads until the other side closes; a reset counts as closed.
    async fn say(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn each_address_answers_and_nothing_else_does() {
        let (address, stop, served) = started().await;
        for (request, status, content) in [
            ("GET /health/live", "200", r#""status":"ok""#),
            ("GET /health/ready", "503", "no leader"),
            ("GET /metrics", "200", "malle_up 1.0\n# EOF"),
            ("GET /metrics?x=1", "200", "malle_up 1.0"),
            ("GET /", "404", "/metrics"),
            ("POST /metrics", "405", "GET"),
        ] {
            let answer = say(address, format!("{request} HTTP/1.1\r\nhost: n\r\n\r\n").as_bytes()).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {answer}"
            );
            assert!(answer.contains(content), "{request}: {answer}");
        }
        stop.send_replace(true);
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let (address, _stop, _served) = started().await;
        let endless = format!(
            "GET /metrics HTTP/1.1\r\nx: {}\r\n",
            "y".repeat(4 * REQUEST_HEAD_MAX_BYTES)
        );
        let answer = say(address, endless.as_bytes()).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }

    /// Answers only when it may, and counts who waits.
    struct Slow {
        inside: watch::Sender<(usize, usize)>,
        open: watch::Receiver<bool>,
    }

    #[async_trait]
    impl Observed for Slow {
        async fn health(&self) -> Health {
            self.inside
                .send_modify(|(now, most)| (*now, *most) = (*now + 1, (*now + 1).max(*most)));
            self.open.clone().wait_for(|open| *open).await.unwrap();
            self.inside.send_modify(|(now, _)| *now -= 1);
            Health::default()
        }

        async fn page(&self) -> Page {
            Page::default()
        }
    }

    #[tokio::test]
    async fn more_connections_than_allowed_wait_for_a_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let (inside, mut seen) = watch::channel((0, 0));
        let (open, opened) = watch::channel(false);
        malle_rt::spawn(serve(listener, Arc::new(Slow { inside, open: opened }), stopped));
        let request = b"GET /health/live HTTP/1.1\r\nhost: n\r\n\r\n";
        let all = malle_rt::spawn(futures::future::join_all(
            (0..CONNECTIONS_MAX + 4).map(|_| say(address, request)),
        ));
        seen.wait_for(|(now, _)| *now == CONNECTIONS_MAX).await.unwrap();
        open.send_replace(true);
        assert!(all.await.unwrap().iter().all(|answer| answer.contains(" 200 ")));
        assert_eq!(seen.borrow().1, CONNECTIONS_MAX, "no more were served at one time");
    }
}
