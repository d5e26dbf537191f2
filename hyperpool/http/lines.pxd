cpdef bytes histograms(list texts, tuple shown, list parts)
