// Package nbd is a Network Block Device client that reads: data and block status, with many requests in flight on
// one connection. It knows nothing about replication; hostd uses it to read a pull-mode backup export from a unix
// socket.
//
// It speaks the fixed newstyle handshake with structured replies, NBD_OPT_GO and metadata contexts, and falls back to
// simple replies with a server that has no structured ones. It never writes to an export and has no TLS: encryption is
// done between hosts, not here.
//
// # Promises
//
//   - Payload goes from the socket into the caller's buffer, without a copy in between, save for the few
//     kilobytes that came with a header.
//   - A buffer handed to ReadAt belongs to the caller again as soon as ReadAt returns, for whatever reason it returns.
//   - The server is not trusted. What it sends is checked before it is used, what it can make this side allocate is
//     bounded, and the first violation ends the connection with an error that wraps ErrProtocol. Everyone who waits
//     gets that error at once.
//   - An error that the server reports properly is a *ServerError and costs only the request it belongs to.
//   - Nothing is retried and nothing reconnects: a dead Client stays dead, the caller dials again.
//
// # Goroutines
//
// Each Client owns two, one that sends requests and one that receives replies. Both end with Close, which waits for
// them; Close is owed even when the connection died on its own.
package nbd
