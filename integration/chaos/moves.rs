//! Random moves of one shard and of several, splits and merges, their reversals, and what calls them
//! off.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::world::World;

/// No fewer shards than this are left, and no more are made.
const SHARDS: std::ops::Range<usize> = 6..14;

/// Asks for a move, a split or a merge; whether it was taken.
pub async fn ask(world: &World, random: &mut StdRng) -> bool {
    let Some(shards) = world.admin("/api/v1/shards").await else { return false };
    let shards = shards["shards"].as_array().cloned().unwrap_or_default();
    let moves: Vec<Value> = world.moves().await.unwrap_or_default();
    let under_way = moves.iter().find(|mv| mv["finished"] == false && mv["state"] != "keeping");
    let called_off = under_way.filter(|_| random.random_range(0..20) == 0);
    let wanted = if let Some(mv) = called_off {
        Some(("/api/v1/cancellations", json!({ "move": mv["id"] })))
    } else {
        let kept: Vec<_> = moves.into_iter().filter(|mv| mv["state"] == "keeping").collect();
        wanted(&shards, &kept, random)
    };
    let Some((path, body)) = wanted else { return false };
    match world.post(path, &body).await {
        Some((200..300, _)) => true,
        // Something else moves, or there is nothing to go back from.
        Some((404 | 409, _)) | None => false,
        Some((status, text)) => {
            println!("{path} {body}: {status} {text}");
            false
        }
    }
}

fn wanted(shards: &[Value], kept: &[Value], random: &mut StdRng) -> Option<(&'static str, Value)> {
    let node = |random: &mut StdRng| format!("n{}", random.random_range(1..4));
    let shard = shards.get(random.random_range(0..shards.len().max(1)))?;
    let dice = random.random_range(0..15);
    if dice >= 10 {
        let path = if dice == 10 { "/api/v1/confirmations" } else { "/api/v1/reversals" };
        let back = kept.get(random.random_range(0..kept.len().max(1)))?;
        return Some((path, json!({ "move": back["id"] })));
    }
    if dice < 2 && shards.len() < SHARDS.end {
        let nodes = [node(random), node(random)];
        return Some(("/api/v1/splits", json!({ "shard": shard["shard"], "nodes": nodes })));
    }
    if dice < 5 && shards.len() > SHARDS.start {
        let pairs = siblings(shards);
        if let Some((one, other)) = pairs.get(random.random_range(0..pairs.len().max(1))) {
            let body = json!({ "shards": [one, other], "node": node(random) });
            return Some(("/api/v1/merges", body));
        }
    }
    let here = shard["node"].as_str()?;
    let there = (1..4).map(|n| format!("n{n}")).filter(|name| name != here);
    let there: Vec<_> = there.collect();
    let there = &there[random.random_range(0..there.len())];
    let mut moving = vec![&shard["shard"]];
    if dice >= 8 {
        let beside = shards.iter().filter(|it| it["node"] == here && it["shard"] != shard["shard"]);
        moving.extend(beside.map(|it| &it["shard"]).take(random.random_range(1..4)));
    }
    Some(("/api/v1/moves", json!({ "shards": moving, "node": there })))
}

/// Pairs that were one shard.
fn siblings(shards: &[Value]) -> Vec<(&Value, &Value)> {
    let hash = |shard: &Value| {
        let bounds = &shard["bounds"]["Hash"];
        Some((bounds["modulus"].as_u64()?, bounds["remainder"].as_u64()?))
    };
    let mut pairs = Vec::new();
    for one in shards {
        for other in shards {
            let (Some((m, r)), Some((n, s))) = (hash(one), hash(other)) else { continue };
            if m == n && m % 2 == 0 && s == r + m / 2 {
                pairs.push((&one["shard"], &other["shard"]));
            }
        }
    }
    pairs
}
