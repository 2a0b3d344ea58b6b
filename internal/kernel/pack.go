package kernel

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
)

// packFrom is the size from which a delta is sent compressed: below it costs more than it saves.
const packFrom = 4 << 10

// maxUnpacked bounds an unpacked delta, in bytes.
const maxUnpacked = 16 * MaxFrame

// Pack is the delta as JSON for the wire: a large one is compressed into {"packed": "..."}, once for all agents.
// Reading it as JSON unpacks it again.
func (d *EndpointDelta) Pack() ([]byte, error) {
	plain, err := json.Marshal(d)
	if err != nil || len(plain) < packFrom {
		return plain, err
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return json.Marshal(packed{b.Bytes()})
}

type packed struct {
	Packed []byte `json:"packed"`
}

// UnmarshalJSON reads both the plain and the packed form.
func (d *EndpointDelta) UnmarshalJSON(b []byte) error {
	type delta EndpointDelta // without this method
	if !bytes.HasPrefix(b, []byte(`{"packed"`)) {
		return json.Unmarshal(b, (*delta)(d))
	}
	var p packed
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(p.Packed)), maxUnpacked+1))
	if err != nil {
		return fmt.Errorf("packed endpoints: %w", err)
	}
	if len(plain) > maxUnpacked {
		return invalid("packed endpoints are more than %d bytes", maxUnpacked)
	}
	return json.Unmarshal(plain, (*delta)(d))
}
