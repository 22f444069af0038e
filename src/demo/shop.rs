//! The shop: what its visitors do, and what goes wrong.

use opentelemetry::{logs::Severity, trace::SpanKind};

use super::{
    random::Random,
    script::{ActId, Ask, Done, Effect, Fault, Query, Script, Service},
};

const PRODUCTS: [&str; 6] = ["lamp", "kettle", "chair", "notebook", "umbrella", "radio"];
const CURRENCIES: [&str; 3] = ["EUR", "USD", "GBP"];
const AGENTS: [&str; 3] =
    ["Mozilla/5.0 (X11; Linux x86_64) Firefox/142.0", "Mozilla/5.0 (Macintosh) Safari/605.1.15", "curl/8.14.1"];
/// A charge is tried so many times.
const CHARGES_MAX: u64 = 3;

/// The script of the `number`-th visit under `seed`; `error_pct` of all visits fail.
pub(super) fn visit(seed: u64, number: u64, error_pct: f64) -> Script {
    let mut script = Script::new(Random::of(seed, number));
    let fails = script.random.chance(error_pct);
    match script.random.below(100) {
        0..30 => home(&mut script, fails),
        30..60 => product(&mut script, fails),
        60..80 => add_to_cart(&mut script, fails),
        80..97 => checkout(&mut script, fails, error_pct),
        _ => restock(&mut script, fails),
    }
    script
}

fn fault(name: &'static str, message: impl Into<String>, http_status: i64, grpc_status: i64) -> Fault {
    Fault { name, message: message.into(), http_status, grpc_status }
}

fn query_timeout() -> Fault {
    fault("QueryTimeout", "the database did not answer within 2 s", 503, 14)
}

/// A request of a browser to `web`, and `work` behind it.
fn page(
    script: &mut Script,
    method: &'static str,
    route: &'static str,
    path: String,
    work: impl FnOnce(&mut Script, ActId, u64) -> Done,
) {
    let act = script.begin(None, Service::Web, SpanKind::Server, format!("{method} {route}"), 0);
    let agent = script.random.pick(&AGENTS).unwrap_or_default();
    let visitor = script.random.below(5000);
    script.set(act, "http.request.method", method);
    script.set(act, "http.route", route);
    script.set(act, "url.path", path);
    script.set(act, "url.scheme", "https");
    script.set(act, "server.address", "shop.example.com");
    script.set(act, "server.port", 443);
    script.set(act, "network.protocol.version", "2");
    script.set(act, "user_agent.original", agent);
    script.set(act, "client.address", format!("203.0.113.{}", visitor % 250));
    script.set(act, "user.id", format!("u{visitor:05}"));
    let begun = script.random.micros(400);
    let done = work(script, act, begun);
    let end = done.at + script.random.micros(600);
    script.end(act, end);
    let status = done.outcome.as_ref().err().map_or(200, |fault| fault.http_status);
    script.set(act, "http.response.status_code", status);
    script.http_error(act, status, 500);
    let severity = if status >= 500 { Severity::Warn } else { Severity::Info };
    script.note(act, end, severity, format!("{method} {route} answered {status}"));
}

/// The later end of things done side by side, and the first fault among them.
fn join(parts: impl IntoIterator<Item = Done>) -> Done {
    parts.into_iter().fold(Done::well(0), |all, part| Done { at: all.at.max(part.at), outcome: all.outcome.and(part.outcome) })
}

fn home(script: &mut Script, fails: bool) {
    page(script, "GET", "/", "/".to_owned(), |script, web, at| {
        let ask = Ask::Grpc { service: "shop.Recommendations", method: "List" };
        let recommended = script.call(web, at, Service::Recommendation, ask, |script, act, at| {
            let scored = script.begin(Some(act), Service::Recommendation, SpanKind::Internal, "score candidates", at);
            script.set(scored, "shop.candidates", 40);
            let end = at + script.random.micros(6000);
            script.end(scored, end);
            if fails {
                let fault = fault("ModelNotLoaded", "the ranking model is not loaded", 503, 14);
                script.raise(act, end, &fault);
                return Done::badly(end, fault);
            }
            Done::well(end)
        });
        let ask = Ask::Http { method: "GET", route: "/products" };
        let listed = script.call(web, at, Service::Catalogue, ask, |script, act, at| {
            let query = Query::sql("SELECT", "products", "SELECT id, name, price FROM products ORDER BY rank LIMIT $1");
            script.query(act, at, query, 4000, None)
        });
        let both = join([recommended, listed]);
        if let Err(fault) = &both.outcome {
            // The page is shown without recommendations: the error stays below.
            script.note(web, both.at, Severity::Warn, format!("shown without recommendations: {}", fault.message));
        }
        Done::well(both.at)
    });
}

fn product(script: &mut Script, fails: bool) {
    let product = script.random.pick(&PRODUCTS).unwrap_or_default();
    let cached = script.random.chance(70.0);
    page(script, "GET", "/products/{id}", format!("/products/{product}"), |script, web, at| {
        let ask = Ask::Http { method: "GET", route: "/products/{id}" };
        script.call(web, at, Service::Catalogue, ask, |script, act, at| {
            script.set(act, "shop.product", product);
            let looked = script.query(act, at, Query::redis("GET", "GET product:?"), 500, None);
            if cached && !fails {
                return Done::well(looked.at);
            }
            let query = Query::sql("SELECT", "products", "SELECT * FROM products WHERE id = $1");
            let typical = if fails { 2_000_000 } else { 5000 };
            let found = script.query(act, looked.at, query, typical, fails.then(query_timeout));
            if found.outcome.is_err() {
                return found;
            }
            script.query(act, found.at, Query::redis("SET", "SET product:? ? EX 300"), 600, None)
        })
    });
}

fn add_to_cart(script: &mut Script, fails: bool) {
    let product = script.random.pick(&PRODUCTS).unwrap_or_default();
    let items = 1 + script.random.below(3);
    page(script, "POST", "/cart/items", "/cart/items".to_owned(), |script, web, at| {
        let ask = Ask::Grpc { service: "shop.Cart", method: "AddItem" };
        script.call(web, at, Service::Cart, ask, |script, act, at| {
            script.set(act, "shop.product", product);
            script.set(act, "shop.items", i64::try_from(items).unwrap_or_default());
            let ask = Ask::Grpc { service: "shop.Inventory", method: "CheckStock" };
            let checked = script.call(act, at, Service::Inventory, ask, |script, act, at| {
                let query = Query::sql("SELECT", "stock", "SELECT level FROM stock WHERE product = $1");
                let read = script.query(act, at, query, 2500, None);
                if fails {
                    let fault = fault("OutOfStock", format!("{product} is sold out"), 409, 9);
                    script.raise(act, read.at, &fault);
                    return Done::badly(read.at, fault);
                }
                read
            });
            if checked.outcome.is_err() {
                return checked;
            }
            let kept = script.query(act, checked.at, Query::redis("HSET", "HSET cart:? ? ?"), 700, None);
            script.effects.push(Effect::CartItems(i64::try_from(items).unwrap_or_default()));
            script.note(act, kept.at, Severity::Info, format!("{items} × {product} put into the cart"));
            kept
        })
    });
}

fn checkout(script: &mut Script, fails: bool, error_pct: f64) {
    let items = 1 + script.random.below(4);
    let cents = 500 + script.random.below(40_000);
    let currency = script.random.pick(&CURRENCIES).unwrap_or("EUR");
    let order = script.random.next();
    // A charge now and then fails at first and works when it is tried again.
    let stumbles = if script.random.chance((error_pct * 4.0).min(60.0)) { 1 + script.random.below(CHARGES_MAX - 1) } else { 0 };
    let tries_failed = if fails { CHARGES_MAX } else { stumbles };
    let mut sent = None;
    page(script, "POST", "/checkout", "/checkout".to_owned(), |script, web, at| {
        let ask = Ask::Http { method: "POST", route: "/orders" };
        script.call(web, at, Service::Checkout, ask, |script, act, at| {
            script.set(act, "shop.order.id", format!("{order:016x}"));
            script.set(act, "shop.order.items", i64::try_from(items).unwrap_or_default());
            let placed = place_order(script, act, at, items, cents, currency, tries_failed);
            if placed.outcome.is_err() {
                return placed;
            }
            let (message, end) = script.send(act, placed.at, "orders", order);
            sent = Some((message, end));
            script.effects.push(Effect::Order { cents, currency, items });
            script.effects.push(Effect::CartItems(-i64::try_from(items).unwrap_or_default()));
            script.note(act, end, Severity::Info, format!("order {order:016x} placed: {items} items"));
            Done::well(end)
        })
    });
    if let Some((message, at)) = sent {
        ship(script, message, at, order);
    }
}

fn place_order(
    script: &mut Script,
    act: ActId,
    at: u64,
    items: u64,
    cents: u64,
    currency: &'static str,
    tries_failed: u64,
) -> Done {
    let ask = Ask::Grpc { service: "shop.Cart", method: "GetCart" };
    let cart = script.call(act, at, Service::Cart, ask, |script, act, at| {
        script.query(act, at, Query::redis("HGETALL", "HGETALL cart:?"), 600, None)
    });
    let priced = script.begin(Some(act), Service::Checkout, SpanKind::Internal, "price order", cart.at);
    script.set(priced, "shop.order.cents", i64::try_from(cents).unwrap_or_default());
    let at = cart.at + script.random.micros(1500);
    script.end(priced, at);

    // One reservation an item and the assessment, all side by side.
    let mut parts = Vec::new();
    for _ in 0..items {
        let product = script.random.pick(&PRODUCTS).unwrap_or_default();
        let ask = Ask::Grpc { service: "shop.Inventory", method: "Reserve" };
        parts.push(script.call(act, at, Service::Inventory, ask, |script, act, at| {
            script.set(act, "shop.product", product);
            let query = Query::sql("UPDATE", "stock", "UPDATE stock SET level = level - $1 WHERE product = $2 AND level >= $1");
            let level = i64::try_from(script.random.below(200)).unwrap_or_default();
            script.effects.push(Effect::Stock { product, level });
            script.query(act, at, query, 3500, None)
        }));
    }
    let ask = Ask::Http { method: "POST", route: "/assess" };
    parts.push(script.call(act, at, Service::Fraud, ask, |script, act, at| {
        let risk = script.random.share();
        script.set(act, "shop.risk", (risk * 1000.0).round() / 1000.0);
        let end = at + script.random.micros(9000);
        if risk > 0.95 {
            script.note(act, end, Severity::Warn, "unusual order, let through");
        }
        Done::well(end)
    }));
    let ready = join(parts);

    let paid = charge(script, act, ready.at, cents, currency, tries_failed);
    if paid.outcome.is_err() {
        return paid;
    }
    script.query(
        act,
        paid.at,
        Query::sql("INSERT", "orders", "INSERT INTO orders (id, total, currency) VALUES ($1, $2, $3)"),
        3000,
        None,
    )
}

/// Charges a card; what fails is tried again, each try with spans of its own.
fn charge(script: &mut Script, act: ActId, mut at: u64, cents: u64, currency: &'static str, tries_failed: u64) -> Done {
    let ask = Ask::Grpc { service: "shop.Payment", method: "Charge" };
    for number in 0..CHARGES_MAX {
        let fails = number < tries_failed;
        let client = script.acts.len();
        let done = script.call(act, at, Service::Payment, ask, |script, act, at| {
            script.set(act, "shop.currency", currency);
            script.set(act, "shop.payment.cents", i64::try_from(cents).unwrap_or_default());
            let status = if fails { 503 } else { 200 };
            let typical = if fails { 120_000 } else { 45_000 };
            let end = script.outside(act, at, "card-network", "https://api.cards.example.net/v2/charges", typical, status);
            if fails {
                let fault = fault("CardNetworkUnavailable", "the card network answered 503", 502, 14);
                script.raise(act, end, &fault);
                return Done::badly(end, fault);
            }
            script.note(act, end, Severity::Info, format!("charged {}.{:02} {currency}", cents / 100, cents % 100));
            Done::well(end)
        });
        if number > 0 {
            script.set(client, "shop.retry", i64::try_from(number).unwrap_or_default());
        }
        if done.outcome.is_ok() || number + 1 == CHARGES_MAX {
            return done;
        }
        script.note(act, done.at, Severity::Warn, format!("charging failed, trying again ({} of {CHARGES_MAX})", number + 2));
        at = done.at + script.random.micros(20_000 << number);
    }
    Done::well(at)
}

/// What happens behind the queue, after the visitor has gone.
fn ship(script: &mut Script, order_sent: ActId, at: u64, order: u64) {
    let waited = at + script.random.micros(15_000);
    let mut announced = None;
    script.receive(order_sent, true, waited, Service::Shipping, "orders", order, |script, act, at| {
        script.set(act, "shop.order.id", format!("{order:016x}"));
        let query = Query::sql("INSERT", "shipments", "INSERT INTO shipments (order_id, carrier) VALUES ($1, $2)");
        let kept = script.query(act, at, query, 3500, None);
        script.note(act, kept.at, Severity::Info, format!("order {order:016x} handed to the carrier"));
        let (message, end) = script.send(act, kept.at, "shipments", order.wrapping_add(1));
        announced = Some((message, end));
        Done::well(end)
    });
    let Some((message, at)) = announced else { return };
    let waited = at + script.random.micros(8000);
    script.receive(message, false, waited, Service::Email, "shipments", order.wrapping_add(1), |script, act, at| {
        let rendered = script.begin(Some(act), Service::Email, SpanKind::Internal, "render template", at);
        script.set(rendered, "shop.template", "shipped");
        let at = at + script.random.micros(2500);
        script.end(rendered, at);
        let end = script.outside(act, at, "mail-provider", "https://mail.example.org/v1/messages", 30_000, 202);
        let visitor = order % 5000;
        script.note(act, end, Severity::Info, format!("told visitor{visitor}@example.com that the order is on its way"));
        Done::well(end)
    });
}

/// Work that nobody asked for from outside: a root span that is no server's.
fn restock(script: &mut Script, fails: bool) {
    let act = script.begin(None, Service::Inventory, SpanKind::Internal, "restock", 0);
    let query = Query::sql("SELECT", "stock", "SELECT product FROM stock WHERE level < $1");
    let mut at = script.query(act, 500, query, 6000, None).at;
    let mut outcome = Ok(());
    for product in PRODUCTS {
        let query = Query::sql("UPDATE", "stock", "UPDATE stock SET level = $1 WHERE product = $2");
        let breaks = fails && product == "chair";
        let done = script.query(act, at, query, 3000, breaks.then(query_timeout));
        at = done.at;
        if let Err(fault) = done.outcome {
            outcome = Err(fault);
            break;
        }
        script.effects.push(Effect::Stock { product, level: 200 });
    }
    script.end(act, at + 200);
    match outcome {
        Ok(()) => script.note(act, at, Severity::Debug, "all shelves are full"),
        Err(fault) => script.raise(act, at, &fault),
    }
}
