//! The configuration file of a test's containerd, in the schema its release reads.

use std::path::{Path, PathBuf};

use crate::Version;

/// Annotations that the handler passes on to the shim.
const ANNOTATIONS: &str = r#"["wasmlet.dev/*", "module.wasm.image/*", "run.oci.handler"]"#;

/// Image of the pod sandbox.
pub(crate) const PAUSE_IMAGE: &str = "conformance.wasmlet.test/pause:1";

/// Engines that have a handler of their own, `wasm-<engine>`, and the one that leaves the choice.
pub(crate) const HANDLER_ENGINES: [Option<&str>; 4] =
    [None, Some("wasmtime"), Some("wasmedge"), Some("wasmer")];

/// Text of `config.toml` for a containerd that lives in `base`.
///
/// `settings` gives the settings file of each wasm handler.
pub(crate) fn render(
    version: &Version,
    base: &Path,
    settings: impl Fn(Option<&'static str>) -> PathBuf,
) -> String {
    let base = base.display();
    let schema = version.config_schema();
    // `restrict_oom_score_adj`: without CAP_SYS_RESOURCE runc cannot start a sandbox otherwise.
    let cri = match schema {
        2 => format!(
            r#"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{base}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
"#
        ),
        _ => format!(
            r#"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  enable_cdi = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{base}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"#
        ),
    };
    let plugin = match schema {
        2 => "io.containerd.grpc.v1.cri",
        _ => "io.containerd.cri.v1.runtime",
    };
    let runtimes = format!(r#"plugins."{plugin}".containerd.runtimes"#);
    let handlers: String = HANDLER_ENGINES
        .iter()
        .map(|engine| {
            let name = engine.map_or("wasm".to_owned(), |engine| format!("wasm-{engine}"));
            let options = settings(*engine);
            let options = options.display();
            format!(
                r#"  [{runtimes}.{name}]
    runtime_type = "io.containerd.wasm.v1"
    pod_annotations = {ANNOTATIONS}
    container_annotations = {ANNOTATIONS}
    [{runtimes}.{name}.options]
      ConfigPath = "{options}"
"#
            )
        })
        .collect();
    format!(
        r#"version = {schema}
root = "{base}/root"
state = "{base}/state"
temp = "{base}/temp"
[grpc]
  address = "{base}/c.sock"
[debug]
  level = "debug"
[plugins."io.containerd.internal.v1.opt"]
  path = "{base}/opt"
{cri}
  [{runtimes}.runc]
    runtime_type = "io.containerd.runc.v2"
{handlers}"#
    )
}
