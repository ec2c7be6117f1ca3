package ledger

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Prefix begins every line that a guest of the lab writes for machines.
const Prefix = "UMBRA-LEDGER "

// Boot is the line a guest prints once, after it has verified its ledger.
func (r Report) Boot() string {
	torn := 0
	if r.Torn {
		torn = 1
	}
	return fmt.Sprintf("%sboot last=%d gaps=%d bad=%d torn=%d ring=%d disks=%d id=%s",
		Prefix, r.Last, r.Gaps, r.BadChecksums, torn, r.Ring, r.Disks, hex.EncodeToString(r.ID[:]))
}

// Record is the line a guest prints after record n, and with it every earlier one, is durable.
func Record(n uint64) string { return Prefix + "record " + strconv.FormatUint(n, 10) }

// Console is what the serial console of a guest tells about its ledger.
type Console struct {
	Boots []Report // what the guest found, in the order of its boots
	Last  uint64   // the record announced last, since the latest boot; 0 when none was
}

var bootLine = regexp.MustCompile(`boot last=(\d+) gaps=(\d+) bad=(\d+) torn=(\d+) ring=(\d+) disks=(\d+) id=([0-9a-f]{32})`)

// ReadConsole reads the complete lines of a console log. Anything that is not a line of the ledger's is
// passed over: firmware, boot loader and kernel write there too.
func ReadConsole(log string) Console {
	var c Console
	for {
		line, rest, complete := strings.Cut(log, "\n")
		if !complete {
			return c
		}
		log = rest
		_, told, ours := strings.Cut(line, Prefix)
		if !ours {
			continue
		}
		told = strings.TrimRight(told, "\r")
		if report, ok := parseBoot(told); ok {
			c.Boots = append(c.Boots, report)
			c.Last = 0
			continue
		}
		if number, ok := strings.CutPrefix(told, "record "); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				c.Last = n
			}
		}
	}
}

func parseBoot(told string) (Report, bool) {
	fields := bootLine.FindStringSubmatch(told)
	if fields == nil {
		return Report{}, false
	}
	var numbers [6]uint64
	for i := range numbers {
		n, err := strconv.ParseUint(fields[i+1], 10, 63)
		if err != nil {
			return Report{}, false
		}
		numbers[i] = n
	}
	r := Report{
		Last: numbers[0], Gaps: int(numbers[1]), BadChecksums: int(numbers[2]), Torn: numbers[3] != 0,
		Ring: numbers[4], Disks: int(numbers[5]),
	}
	if _, err := hex.Decode(r.ID[:], []byte(fields[7])); err != nil {
		return Report{}, false
	}
	return r, true
}
