package jpeg

import "context"

// keep decodes a scan that is not all of the picture into the coefficients of
// its components (ITU-T T.81, annex G).
func (d *decoder) keep(ctx context.Context, scan *scanHeader) error {
	for _, i := range scan.components {
		c := &d.components[i]
		if c.coefficients == nil {
			c.coefficients = make([]int16, 64*c.blocks*d.mcusDown*int(d.state.components[i].v))
		}
	}
	// A scan of one component has no padding, and its MCUs are blocks.
	across, down := d.mcusAcross, d.mcusDown
	single := len(scan.components) == 1
	if single {
		c := &d.components[scan.components[0]]
		across, down = (c.width+7)/8, (c.height+7)/8
	}
	restart := d.interval
	for y := range down {
		if err := ctx.Err(); err != nil {
			return err
		}
		for x := range across {
			if d.interval > 0 {
				if restart == 0 {
					if d.bits.overrun(&d.state) {
						return d.bits.ended()
					}
					if err := d.bits.restart(&d.state); err != nil {
						return err
					}
					scan.run, restart = 0, d.interval
				}
				restart--
			}
			if d.state.position > d.state.limit && !d.bits.fill(&d.state) {
				return d.bits.ended()
			}
			for _, i := range scan.components {
				h, v := int(d.state.components[i].h), int(d.state.components[i].v)
				if single {
					h, v = 1, 1
				}
				for b := range h * v {
					if !d.keepBlock(scan, i, x*h+b%h, y*v+b/h) {
						return errHuffman
					}
				}
			}
		}
		if d.bits.overrun(&d.state) {
			return d.bits.ended()
		}
	}
	return nil
}

func (d *decoder) keepBlock(scan *scanHeader, component, x, y int) bool {
	c, s := &d.components[component], &d.state
	block := (*[64]int16)(c.coefficients[64*(y*c.blocks+x):])
	plan := &s.components[component]
	switch {
	case !d.frame.progressive:
		unscaled := *plan
		for i := range unscaled.quantization {
			unscaled.quantization[i] = 1
		}
		_, ok := s.block(d.bits.buffer, &unscaled, block)
		plan.last = unscaled.last
		return ok
	case scan.first > 0 && scan.refined > 0:
		return s.refineAC(d.bits.buffer, scan, &s.tables[1][plan.ac], block)
	case scan.first > 0:
		return s.firstAC(d.bits.buffer, scan, &s.tables[1][plan.ac], block)
	case scan.refined > 0:
		s.refill(d.bits.buffer)
		block[0] |= int16(s.take(1) << scan.low)
		return true
	default:
		s.refill(d.bits.buffer)
		_, difference, ok := s.coefficient(&s.tables[0][plan.dc])
		plan.last += int64(difference)
		block[0] = int16(plan.last << scan.low)
		return ok
	}
}

// firstAC decodes the high bits of a block's AC coefficients (G.1.2.2).
func (s *state) firstAC(buffer []uint8, scan *scanHeader, h *huffman, block *[64]int16) bool {
	if scan.run > 0 {
		scan.run--
		return true
	}
	for k := scan.first; k <= scan.last; k++ {
		s.refill(buffer)
		run, value, ok := s.coefficient(h)
		switch {
		case !ok:
			return false
		case value == 0 && run < 15:
			scan.run = 1<<run + s.take(run) - 1
			return true
		}
		k += run
		if value != 0 {
			block[zigzag[k]] = int16(value << scan.low)
		}
	}
	return true
}

// refineAC decodes the next bit of a block's AC coefficients (G.1.2.3): those
// that are new, and for each that is not 0 already one that corrects it.
func (s *state) refineAC(buffer []uint8, scan *scanHeader, h *huffman, block *[64]int16) bool {
	k := scan.first
	for scan.run == 0 && k <= scan.last {
		s.refill(buffer)
		run, value, ok := s.coefficient(h)
		switch {
		case !ok:
			return false
		case value == 0 && run < 15:
			scan.run = 1<<run + s.take(run)
			continue
		}
		if k = s.correct(buffer, scan, block, k, run); value != 0 {
			// libjpeg warns of values other than 1 and -1 and takes their sign.
			block[zigzag[k]] = int16(max(min(value, 1), -1) << scan.low)
		}
		k++
	}
	if scan.run > 0 {
		s.correct(buffer, scan, block, k, 64)
		scan.run--
	}
	return true
}

// correct corrects coefficients from the k-th on and passes over zeros, and
// returns the place of the one behind.
func (s *state) correct(buffer []uint8, scan *scanHeader, block *[64]int16, k, zeros int) int {
	for ; k <= scan.last; k++ {
		v := &block[zigzag[k]]
		if *v == 0 {
			if zeros == 0 {
				break
			}
			zeros--
			continue
		}
		s.refill(buffer)
		bit := int16(1) << scan.low
		if s.take(1) == 1 && *v&bit == 0 {
			if *v < 0 {
				bit = -bit
			}
			*v += bit
		}
	}
	return k
}
