//! The simulated kubelets' port: the API server asks it for the logs of probe pods.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use wasmlet_api::names::PROBE_LINE;

use crate::error::Error;

/// Serves for as long as the process lives; gives the port.
pub(crate) async fn serve(address: IpAddr, certificate: &Path, key: &Path) -> Result<u16, Error> {
    let acceptor = acceptor(certificate, key)?;
    let listen = |source| Error::Listen { address, source };
    let listener = TcpListener::bind((address, 0)).await.map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();
    tokio::spawn(async move {
        // A connection that fails is the API server's to tell about: the operator's probe fails.
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let answer = service_fn(|_: Request<_>| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!(
                        "{PROBE_LINE}\n"
                    )))))
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer);
                drop(served.await);
            });
        }
    });
    Ok(port)
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let unusable = |path: &Path, what: String| Error::Certificate {
        path: path.to_owned(),
        what,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(certificate, error.to_string()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(certificate, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| unusable(certificate, error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
