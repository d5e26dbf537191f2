from hyperpool.wire.scan cimport length_at
