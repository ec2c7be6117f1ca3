package replicate

import (
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// nvramBytesMax bounds the file with the UEFI variables of a server: with the definition it must fit a control message.
const nvramBytesMax = 8 << 20

// nvramOf reads the UEFI variables of a server from the file that its definition names. Without them the shadow server would begin with empty
// ones, which most guests survive, so that they cannot be read stops nothing.
func nvramOf(serverXML string, log *slog.Logger) []byte {
	var definition struct {
		NVRAM string `xml:"os>nvram"`
	}
	if err := xml.Unmarshal([]byte(serverXML), &definition); err != nil {
		log.Warn("the server's definition cannot be read for UEFI variables", "error", err)
		return nil
	}
	if definition.NVRAM == "" {
		return nil
	}
	data, err := readBounded(definition.NVRAM, nvramBytesMax)
	if err != nil {
		log.Warn("the point has no UEFI variables", "error", err)
		return nil
	}
	return data
}

func readBounded(path string, bytesMax int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the UEFI variables: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(file, bytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("reading the UEFI variables: %w", err)
	}
	if int64(len(data)) > bytesMax {
		return nil, fmt.Errorf("the UEFI variables in %s take more than %d bytes", path, bytesMax)
	}
	return data, nil
}
