//! Robots.txt, pacing and limits, as a server sees them.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Barrier;
use tokio::time::{Duration, Instant};

use super::server::{Reply, Server, moved, ok, response};
use super::*;

fn polite(change: impl FnOnce(&mut FetchSettings)) -> Client {
    client(|settings| {
        settings.respect_robots = true;
        change(settings);
    })
}

#[tokio::test]
async fn robots_are_asked_once_and_obeyed() {
    let server = Server::paths(|path| match path {
        "/robots.txt" => ok("User-agent: *\nDisallow: /\n\nUser-agent: faceflow\nDisallow: /private/"),
        path => ok(path),
    })
    .await;
    let client = polite(|_| ());
    for path in ["/a", "/b", "/c"] {
        assert_eq!(page(&client, &server.url(path)).await.expect("allowed").body, path);
    }
    let fault = assert_fault(page(&client, &server.url("/private/x")).await, Class::Policy, "robots", true);
    assert!(fault.detail.contains("/private/x"), "{}", fault.detail);
    assert!(page(&client, &server.url("/robots.txt")).await.is_ok(), "always allowed");
    assert_eq!(server.asked(), ["/robots.txt", "/a", "/b", "/c", "/robots.txt"]);
    let other = polite(|settings| settings.user_agent = "otherbot/1.0".into());
    assert_fault(page(&other, &server.url("/a")).await, Class::Policy, "robots", true);
}

#[tokio::test]
async fn a_missing_file_allows_and_a_broken_server_does_not() {
    let status = |status: u16| Server::always(Reply::Bytes(response(status, "Retry-After: 9\r\n", b"")));
    for (code, reason) in [(404, "http_404"), (403, "http_403"), (401, "http_401"), (410, "http_410")] {
        let server = status(code).await;
        assert_fault(page(&polite(|_| ()), &server.url("/")).await, Class::Refused, reason, true);
        assert_eq!(server.asked(), ["/robots.txt", "/"], "{code} is no rule");
    }
    for code in [500, 503, 429] {
        let server = status(code).await;
        let fault =
            assert_fault(page(&polite(|_| ()), &server.url("/")).await, Class::Busy, "robots_unreachable", false);
        let wait = fault.retry_after_ms.expect("when to ask again");
        assert!((8_000..=9_000).contains(&wait), "{wait}");
        assert_eq!(server.asked(), ["/robots.txt"], "{code} means not now");
    }
}

#[tokio::test]
async fn an_unreachable_file_is_asked_for_again_later() {
    let server = Server::start(|path, before| async move {
        match (path.as_str(), before) {
            ("/robots.txt", 0) => Reply::Close(vec![]),
            ("/robots.txt", _) => ok("User-agent: *\nDisallow: /no"),
            (path, _) => ok(path),
        }
    })
    .await;
    let client = polite(|settings| settings.robots_retry_ms = 20);
    let url = server.url("/yes");
    let fault = assert_fault(page(&client, &url).await, Class::Protocol, "robots_unreachable", false);
    tokio::time::sleep(Duration::from_millis(fault.retry_after_ms.expect("when to ask again") + 1)).await;
    assert_eq!(page(&client, &url).await.expect("allowed").body, "/yes");
    assert_fault(page(&client, &server.url("/no")).await, Class::Policy, "robots", true);
}

#[tokio::test]
async fn rules_behind_redirects_are_the_first_hosts_rules() {
    let server = Server::paths(|path| match path {
        "/robots.txt" => moved("/r/5"),
        "/r/0" => ok("User-agent: *\nDisallow: /no"),
        path if path.starts_with("/r/") => moved(&format!("/r/{}", path[3..].parse::<u32>().expect("a number") - 1)),
        path => ok(path),
    })
    .await;
    let client = polite(|_| ());
    assert_fault(page(&client, &server.url("/no")).await, Class::Policy, "robots", true);
    assert!(page(&client, &server.url("/yes")).await.is_ok());
    let spinning = Server::paths(|path| if path == "/robots.txt" { moved("/robots.txt") } else { ok(path) }).await;
    assert!(page(&client, &spinning.url("/x")).await.is_ok(), "rules that cannot be reached by redirects are none");
    let inward = Server::paths(|path| if path == "/robots.txt" { moved("http://10.0.0.1/") } else { ok(path) }).await;
    assert_fault(page(&client, &inward.url("/x")).await, Class::Policy, "private_address", true);
}

#[tokio::test]
async fn every_hop_obeys_its_own_hosts_rules() {
    let strict = Server::paths(|path| match path {
        "/robots.txt" => ok("User-agent: *\nDisallow: /"),
        path => ok(path),
    })
    .await;
    let target = strict.url("/picture").to_string();
    let server = Server::start(move |path, _| {
        let target = target.clone();
        async move { if path == "/robots.txt" { Reply::Bytes(response(404, "", b"")) } else { moved(&target) } }
    })
    .await;
    let answer = polite(|_| ()).get(&server.url("/x"), Want::Image).await;
    assert_fault(answer, Class::Policy, "robots", true);
    assert_eq!(strict.asked(), ["/robots.txt"]);
}

#[tokio::test]
async fn a_long_file_is_read_to_its_limit() {
    let server = Server::start(|path, _| async move {
        if path != "/robots.txt" {
            return ok(&path);
        }
        let head = b"HTTP/1.1 200 OK\r\n\r\nUser-agent: *\nDisallow: /no\n".to_vec();
        Reply::Repeat(head, b"# and so on\n".repeat(1_000), Duration::ZERO)
    })
    .await;
    let client = polite(|_| ());
    assert!(page(&client, &server.url("/yes")).await.is_ok());
    assert_fault(page(&client, &server.url("/no")).await, Class::Policy, "robots", true);
}

#[tokio::test]
async fn a_crawl_delay_keeps_requests_apart() {
    let server = Server::paths(|path| match path {
        "/robots.txt" => ok("User-agent: *\nCrawl-delay: 0.2\n"),
        path => ok(path),
    })
    .await;
    let client = polite(|_| ());
    let begin = Instant::now();
    let urls = ["/a", "/b", "/c"].map(|path| server.url(path));
    let answers = futures::future::join_all(urls.iter().map(|url| page(&client, url))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(begin.elapsed() >= Duration::from_millis(400), "three starts have two delays between them");
}

#[tokio::test]
async fn waiting_for_a_turn_is_no_timeout() {
    let server = Server::always(ok("here")).await;
    let client = client(|settings| {
        settings.delay_ms = 700;
        settings.total_timeout_ms = 650;
        settings.read_timeout_ms = 650;
    });
    let url = server.url("/");
    let answers = futures::future::join_all((0..3).map(|_| page(&client, &url))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn a_host_never_sees_more_requests_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Nobody is answered before three are there, so the limit is both reached and kept.
    let three = Arc::new(Barrier::new(3));
    let counters = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::start(move |path, _| {
        let ((now, most), three) = (counters.clone(), Arc::clone(&three));
        async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            three.wait().await;
            now.fetch_sub(1, SeqCst);
            ok(&path)
        }
    })
    .await;
    let client = client(|settings| settings.per_host = 3);
    let urls: Vec<_> = (0..30).map(|n| server.url(&format!("/{n}"))).collect();
    let answers = futures::future::join_all(urls.iter().map(|url| page(&client, url))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((now.load(SeqCst), most.load(SeqCst)), (0, 3));
}

#[tokio::test]
async fn an_address_never_sees_more_requests_than_allowed_over_all_its_hosts() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Nobody is answered before three are there, so the limit is both reached and kept.
    let three = Arc::new(Barrier::new(3));
    let site = || {
        let (now, most, three) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&three));
        Server::start(move |path, _| {
            let (now, most, three) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&three));
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                three.wait().await;
                now.fetch_sub(1, SeqCst);
                ok(&path)
            }
        })
    };
    let sites = [site().await, site().await, site().await, site().await];
    let client = client(|settings| settings.per_ip = 3);
    let urls: Vec<_> = (0..30).map(|n| sites[n % 4].url(&format!("/{n}"))).collect();
    let answers = futures::future::join_all(urls.iter().map(|url| page(&client, url))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((now.load(SeqCst), most.load(SeqCst)), (0, 3));
}

#[tokio::test]
async fn names_rules_and_redirects_wait_their_turn_at_one_address() {
    let site = |target: Option<Url>| {
        Server::start(move |path, _| {
            let target = target.clone().filter(|_| path != "/robots.txt");
            async move { target.map_or_else(|| ok(""), |target| moved(target.as_str())) }
        })
    };
    let end = site(None).await;
    let first = site(Some(end.url("/picture"))).await;
    let client = polite(|settings| {
        settings.per_ip = 1;
        settings.ip_delay_ms = 60;
    });
    let named = |server: &Server, path| {
        let port = server.url("/").port().expect("a port");
        Url::parse(&format!("http://localhost:{port}{path}")).expect("a URL")
    };
    let begin = Instant::now();
    let urls = [first.url("/a"), named(&first, "/b"), named(&end, "/c")];
    let answers = futures::future::join_all(urls.iter().map(|url| client.get(url, Want::Image))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(first.heads().len() + end.heads().len(), 9, "the rules of four origins, three requests and two hops");
    assert!(begin.elapsed() >= Duration::from_millis(8 * 60), "nine starts have eight delays between them");
}

#[tokio::test]
async fn hosts_at_one_address_have_one_hash() {
    let client = client(|_| ());
    let hash = async |url: &str| client.address_hash(&Url::parse(url).expect(url)).await;
    let here = hash("http://127.0.0.1:4000/a").await;
    assert!(here.is_some());
    for url in ["http://127.0.0.1:5000/b", "https://localhost/c", "http://[::ffff:127.0.0.1]/", "http://127.1/"] {
        assert_eq!(hash(url).await, here, "{url}");
    }
    let other = hash("http://9.9.9.9/").await;
    assert!(other.is_some() && other != here);
    let unknown = format!("http://{}.invalid/", "a".repeat(64));
    for url in ["http://10.0.0.1/", "http://user@127.0.0.1/", "http://9.9.9.9:25/", "file:///a.jpg", &unknown] {
        assert_eq!(hash(url).await, None, "{url} is not asked");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_when_its_host_says_and_not_before() {
    let server = Server::paths(|path| match path {
        "/soon" => Reply::Bytes(response(307, "Location: /there\r\nRetry-After: 1\r\n", b"")),
        "/late" => Reply::Bytes(response(302, "Location: /there\r\nRetry-After: 3600\r\n", b"")),
        path => ok(path),
    })
    .await;
    let client = client(|_| ());
    let begin = Instant::now();
    let (soon, other) = (server.url("/soon"), server.url("/other"));
    let beside = async {
        while server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        let not_before = async {
            while client.gate().not_before(&other).is_none() {
                tokio::task::yield_now().await;
            }
        };
        not_before.await;
        page(&client, &other).await
    };
    let (answer, refused) = tokio::join!(page(&client, &soon), beside);
    assert_eq!(answer.expect("followed").body, "/there");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_fault(refused, Class::Busy, "http_307", false);
    let fault = assert_fault(page(&client, &server.url("/late")).await, Class::Busy, "http_302", false);
    assert_eq!(fault.retry_after_ms, Some(3_600_000));
    assert_fault(page(&client, &other).await, Class::Busy, "http_302", false);
    assert_eq!(server.asked(), ["/soon", "/there", "/late"]);
}
