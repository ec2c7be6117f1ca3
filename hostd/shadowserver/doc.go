// Package shadowserver is the shadow role of a host. It takes the shadow assignments, tells the replica what to
// accept, and boots, verifies, changes and commits the shadow server.
//
// It promises:
//
//   - No shadow server is started before the replica has promised, durably, to refuse every stream of the
//     assignment's epoch and of lower ones; and no stream is accepted while a shadow server of ours exists.
//   - An attempt (one boot from one recovery point) ends in exactly one result, which is remembered over
//     restarts. A failed one is not tried again by itself.
//   - A change to another recovery point checks everything that can be checked before the old server is stopped.
//     If it fails nevertheless, the old server is brought back from its own disks.
//   - A server that runs is adopted after a restart of hostd, never restarted. One that its user stopped stays off.
//   - A commit that has begun finishes. It needs the server to run, so it starts one that is off.
//   - A committed server and its disks are never touched again, also not when the pair is deleted.
//   - Only a server whose UUID and disks are ours is stopped or undefined; only folders named in the journal are
//     removed.
//
// Everything is level-triggered: each pair has a worker that compares the newest assignment with the journal, the
// store and the hypervisor, and goes on from there. There is no other recovery path, so kill -9 at any point costs
// nothing but time.
//
// # Files
//
// ServersDir/<pair>/attempt-<n>/<disk>.qcow2 is the overlay of a disk over the recovery point's view in the
// pair's store, and attempt-<n>/nvram.fd the UEFI variables. ServersDir lies outside the folder of the stores: a
// commit makes these overlays the server's disks, and deleting the store must not take them. If a folder of that
// name exists already, for instance from a committed server of a deleted pair of the same id, the next free name
// of attempt-<n>-2, attempt-<n>-3, … is taken.
package shadowserver
