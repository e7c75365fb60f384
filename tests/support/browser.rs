//! Debian's Chromium, headless, driven through its chromedriver.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use fantoccini::wd::WindowHandle;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::process::Leftovers;
use super::wait::eventually_some;
use super::{BOUND, Process, TempDir};

const MISSING: &str =
    "Chromium's driver is missing: apt-get install chromium chromium-driver (or: make test)";

/// A chromedriver. Each window is a browser process of its own with a fresh
/// profile: of several tabs in one browser only the foremost polls unthrottled.
#[derive(Debug)]
pub struct Browser {
    // Dropped in this order: the driver first, then what it may have left.
    driver: Process,
    port: u16,
    opened: AtomicU32,
    profiles: Leftovers,
    _turn: SemaphorePermit<'static>,
}

/// Browsers at once: with more of them a machine of two cores is too slow for their pages.
pub(super) static TURNS: Semaphore = Semaphore::const_new(2);

/// Bound on the time until a page shows something.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A page in a browser, whichever that is.
#[allow(async_fn_in_trait)]
pub trait Page {
    /// Runs JavaScript, the body of a function, and answers what it returns.
    async fn run(&self, script: &str) -> Value;

    /// Waits until this JavaScript expression is true in the page.
    async fn wait_until(&self, expression: &str);
}

/// One window, which shows one page.
#[derive(Debug)]
pub struct Window(Client);

/// A tab of a window's browser.
#[derive(Clone, Debug)]
pub struct Tab(WindowHandle);

/// Properties of a screen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// As narrow as a phone's.
    pub phone: bool,
    /// Dark.
    pub dark: bool,
}

impl Browser {
    pub async fn start() -> Browser {
        // It is never closed.
        let _turn = TURNS.acquire().await.unwrap();
        // Chromium's leftovers in the temporary folder go with ours.
        let profiles = Leftovers(TempDir::new("browser"));
        let find = |stdout: &str, _: &str| {
            // It takes a free port of IPv6, which may be taken on IPv4.
            let taken = stdout.contains("port not available").then_some(None);
            let port = || stdout.split_once("started successfully on port ")?.1.split_once('.');
            taken.or_else(|| Some(Some(port()?.0.parse::<u16>().ok()?)))
        };
        let (driver, port) = loop {
            let mut command = Command::new("chromedriver");
            command.arg("--port=0").env("TMPDIR", profiles.0.path());
            let driver = Process::spawn("chromedriver", &mut command, MISSING);
            let port = driver.wait_for_output("port of the driver", BOUND * 2, find).await;
            if let Some(port) = port {
                break (driver, port);
            }
        };
        Browser { driver, port, opened: AtomicU32::new(0), profiles, _turn }
    }

    /// Opens a page in a new window and waits until it has loaded.
    pub async fn open(&self, url: &str) -> Window {
        self.open_as(url, Look::default()).await
    }

    /// As [`Browser::open`], with another screen.
    pub async fn open_as(&self, url: &str, look: Look) -> Window {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let data_dir = self.profiles.0.path().join(format!("window-{number}"));
        let mut options = json!({ "args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            format!("--user-data-dir={}", data_dir.display()),
            "--window-size=1280,1000",
            format!("--blink-settings=preferredColorScheme={}", if look.dark { 0 } else { 1 }),
        ]});
        if look.phone {
            let metrics = json!({ "width": 390, "height": 844, "pixelRatio": 2 });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let capabilities = [("goog:chromeOptions".to_string(), options)].into_iter().collect();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let driver = format!("http://127.0.0.1:{}", self.port);
        let session = builder.capabilities(capabilities).connect(&driver).await;
        let session =
            session.unwrap_or_else(|e| panic!("no window ({e}); is chromium installed? {MISSING}"));
        session.goto(url).await.unwrap_or_else(|e| panic!("{url}: {e}"));
        Window(session)
    }
}

impl Window {
    /// Types into the field that the selector names.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let field = self.0.find(Locator::Css(selector)).await;
        let field = field.unwrap_or_else(|e| panic!("{selector}: {e}"));
        field.send_keys(text).await.unwrap_or_else(|e| panic!("type into {selector}: {e}"));
    }

    /// Clicks on what the selector names.
    pub async fn click(&self, selector: &str) {
        let element = self.0.find(Locator::Css(selector)).await;
        let element = element.unwrap_or_else(|e| panic!("{selector}: {e}"));
        element.click().await.unwrap_or_else(|e| panic!("click {selector}: {e}"));
    }

    /// The texts of all elements that the selector names, in the page's order.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return Array.from(document.querySelectorAll(arguments[0]), \
                      e => e.textContent)";
        let texts = self.execute(script, vec![json!(selector)]).await;
        serde_json::from_value(texts).unwrap()
    }

    /// Waits until the elements that the selector names have these texts,
    /// all of them, in this order, and no other.
    pub async fn wait_for_texts(&self, selector: &str, wanted: &[&str]) {
        let mut last = Vec::new();
        let what = format!("{selector} to read {wanted:?}");
        let search = eventually_some(&what, PATIENCE * 2, async || {
            last = self.texts(selector).await;
            (last == wanted).then_some(())
        });
        let found = tokio::time::timeout(PATIENCE, search).await;
        assert!(found.is_ok(), "waited {PATIENCE:?} for {what}, it reads {last:?}");
    }

    /// Waits until this JavaScript expression is true in the page.
    pub async fn wait_until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        eventually_some(expression, PATIENCE, async || {
            (self.execute(&script, Vec::new()).await == true).then_some(())
        })
        .await;
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.0.refresh().await.unwrap_or_else(|e| panic!("reload: {e}"));
    }

    /// Goes to another page in the same tab.
    pub async fn go_to(&self, url: &str) {
        self.0.goto(url).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    }

    /// Goes back to the page before.
    pub async fn go_back(&self) {
        self.0.back().await.unwrap_or_else(|e| panic!("back: {e}"));
    }

    /// The tab that is looked at.
    pub async fn tab(&self) -> Tab {
        Tab(self.0.window().await.unwrap_or_else(|e| panic!("tab: {e}")))
    }

    /// Opens a page in a further tab of the same browser, which is looked at from here on.
    pub async fn open_tab(&self, url: &str) -> Tab {
        let opened = self.0.new_window(true).await.unwrap_or_else(|e| panic!("new tab: {e}"));
        let tab = Tab(opened.handle);
        self.look_at(&tab).await;
        self.go_to(url).await;
        tab
    }

    /// Looks at another tab.
    pub async fn look_at(&self, tab: &Tab) {
        let looked = self.0.switch_to_window(tab.0.clone()).await;
        looked.unwrap_or_else(|e| panic!("switch to a tab: {e}"));
    }

    /// Closes the tab that is looked at, and looks at another.
    pub async fn close_tab(&self, next: &Tab) {
        self.0.close_window().await.unwrap_or_else(|e| panic!("close a tab: {e}"));
        self.look_at(next).await;
    }

    /// Content of the window, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        self.0.screenshot().await.unwrap_or_else(|e| panic!("screenshot: {e}"))
    }

    /// Runs JavaScript in the page and answers what it returns.
    pub async fn execute(&self, script: &str, args: Vec<Value>) -> Value {
        self.0.execute(script, args).await.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// Closes the window and its browser.
    pub async fn close(self) {
        self.0.close().await.unwrap_or_else(|e| panic!("close a window: {e}"));
    }
}

impl Page for Window {
    async fn run(&self, script: &str) -> Value {
        self.execute(script, Vec::new()).await
    }

    async fn wait_until(&self, expression: &str) {
        Window::wait_until(self, expression).await;
    }
}
