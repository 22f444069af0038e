//! The message of a unary gRPC call.

use std::sync::Arc;

use crate::{
    door::{Budget, Refusal},
    receivers::request::{Gathering, Held, Pieces, STEP_BYTES, too_large},
    transport::server::grpc,
};

/// Reads the one message of a unary call: whether it is compressed, and its bytes. Where it comes in one DATA frame, it is a slice of that.
pub(super) async fn message(mut pieces: Pieces<'_>, budget: &Arc<Budget>, limit: usize) -> Result<(bool, Held), Refusal> {
    let malformed = |what: &str| Refusal::Malformed { message: what.to_owned() };
    let mut first = pieces.next().await?.ok_or_else(|| malformed("there is no message in the call"))?;
    // Almost always the whole message is in one piece; a prefix of its own, or a torn one, is possible.
    while first.len() < grpc::PREFIX_BYTES {
        let more = pieces.next().await?.ok_or_else(|| malformed("the call ends within a message's prefix"))?;
        first = [first, more].concat().into();
    }
    let Some(prefix) = first.first_chunk() else { return Err(malformed("the call ends within a message's prefix")) };
    let (flag, len) = grpc::prefix(*prefix);
    if flag > 1 {
        return Err(malformed("the message's flag is neither 0 nor 1"));
    }
    if len > limit {
        return Err(too_large(len, limit));
    }
    let ticket = budget.take(len.min(STEP_BYTES)).await?;
    let end = grpc::PREFIX_BYTES + len;
    let mut beyond = first.len() > end;
    let held = if first.len() >= end {
        Held { payload: first.slice(grpc::PREFIX_BYTES..end), ticket }
    } else {
        let mut all = Gathering::start(ticket, len).await;
        all.push(first.get(grpc::PREFIX_BYTES..).unwrap_or_default(), len).await?;
        while all.bytes.len() < len {
            let piece = pieces.next().await?.ok_or_else(|| malformed("the call ends within its message"))?;
            let (mine, rest) = piece.split_at(piece.len().min(len - all.bytes.len()));
            beyond = !rest.is_empty();
            all.push(mine, len).await?;
        }
        all.done()
    };
    // An answer before the end of the request would reset the stream under some clients.
    while !beyond
        && !pieces.is_end()
        && let Some(more) = pieces.next().await?
    {
        beyond = !more.is_empty();
    }
    if beyond { Err(malformed("there is more than one message in a unary call")) } else { Ok((flag == 1, held)) }
}
