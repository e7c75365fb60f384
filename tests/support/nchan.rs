//! nginx with Nchan, as Debian has them.

use std::net::TcpListener;
use std::process::Command;

use super::{Addr, Process, TempDir, eventually};

const NGINX: &str = "/usr/sbin/nginx";
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const MISSING: &str =
    "nginx with Nchan is needed: apt-get install nginx libnginx-mod-nchan (or: make test)";

/// A running nginx with Nchan. Dropping it ends it.
pub struct Nchan {
    _process: Process,
    pub addr: Addr,
    _folder: TempDir,
}

impl Nchan {
    /// Starts it with these locations.
    pub async fn start(locations: &str) -> Nchan {
        assert!(std::path::Path::new(MODULE).exists(), "{MISSING}");
        let folder = TempDir::new("nchan");
        // nginx cannot be asked for any free port, so one is taken that was free just now.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = folder.path().display();
        let config = format!(
            "load_module {MODULE};\ndaemon off;\nworker_processes 1;\npid {path}/pid;\n\
             error_log stderr crit;\nevents {{ worker_connections 1024; }}\n\
             http {{\naccess_log off;\nclient_body_temp_path {path}/body;\n\
             proxy_temp_path {path}/proxy;\nfastcgi_temp_path {path}/fastcgi;\n\
             uwsgi_temp_path {path}/uwsgi;\nscgi_temp_path {path}/scgi;\n\
             nchan_shared_memory_size 16M;\nserver {{\nlisten {free};\n{locations}\n}}\n}}\n"
        );
        let file = folder.write("nginx.conf", config);
        let mut command = Command::new(NGINX);
        command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(file);
        let process = Process::spawn("nginx", &mut command, MISSING);
        eventually("nginx listens", async || tokio::net::TcpStream::connect(free).await.is_ok())
            .await;
        Nchan { _process: process, addr: Addr::Tcp(free), _folder: folder }
    }
}
