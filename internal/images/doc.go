// Package images is the datacenter's image store: what people load or a build makes is kept here under its reference,
// and agents pull it from here by the registry protocol before they ask any registry outside.
//
// A loaded archive (an OCI layout or a `docker save` file, as a tar) is unpacked blob by blob into a directory of
// content, each blob written under a temporary name, hashed on the way, synced and renamed to its digest: a blob that
// exists is whole. Only when every blob an image needs is there is its row written to the store, which is the commit
// point: a load that dies half way leaves blobs that the next Collect removes, and no image. Archives are hostile
// input: only names of the two formats are read, nothing is ever written outside the directory (os.Root), sizes and
// counts have limits with names.
//
// All content together has a bound (MaxTotal), and nothing is written that would not leave the store its reserve of the
// disk (package disk); both are judged while an archive arrives, and count what is only being received. What a process
// that ended was receiving is removed at the next start.
//
// References are normalized as everybody does: "hello:1" is "docker.io/library/hello:1". Loading a reference again
// moves it to the new content; agents notice by the manifest's digest.
//
// Rows are in the store (table "images"); content is on this machine's disk. With several masters, content is not
// copied between them yet.
package images
