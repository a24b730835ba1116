// Package rates shares token buckets among replicas.
//
// A rate is the account's: all replicas together may send what one bucket would let pass. There is no round trip in
// the way of a publish, so each replica takes tokens from a share that it holds, and the shares of a bucket add up to
// the whole:
//
//   - A bucket that nobody spoke of is split evenly: each of N replicas has a part of N of its rate and burst (Split).
//     Tokens that cannot be split evenly go to replicas chosen by the bucket's hash. Where the burst is smaller than
//     the number of replicas, each has one token.
//   - A bucket that runs low anywhere, or that needs more than LongWindow to fill, is told to the store. From then on
//     the store holds what nobody has (the pool), and grants tokens, rate and burst by demand. A replica gives back
//     what it does not need before another is granted it.
//   - A replica that hears that another starves gives back all that it does not use itself.
//
// What that promises, with R the rate, B the burst and N the replicas:
//
//   - While the replicas stay the same, at most B + R·w + N publishes pass in any window of length w: one bucket's
//     figure, and at most one token a replica more.
//   - A replica that joins gets nothing until all others have obeyed the new number of replicas. For a window of up to
//     LongWindow it may find its part of N full, whatever the others spent: B/N more, once a join.
//   - A replica that dies or loses the store is taken for dead after TTL. Its rate is the others' from then on. What it
//     may have spent since it last reported counts as spent. If it lives and only cannot reach the store, it goes on
//     with its last share: up to R·w + B of that share more than the whole, until it hears again; then the pool
//     owes what was spent beyond it, and the bucket is held until that is paid.
//   - While the store is away from all, each goes on with its last share, and the sum is still the whole.
//   - Redis' own clock counts; a replica whose clock is off or steps gains at most what its own bucket holds, which the
//     pool is charged with.
//   - A store that lost its data is told what the replicas hold and gives nothing beyond that: 0 more.
//
// This package knows neither Redis nor publishes: the store is a Store, whoever holds buckets is a Source.
package rates
