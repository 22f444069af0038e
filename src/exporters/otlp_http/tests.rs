//! Each over a socket.
