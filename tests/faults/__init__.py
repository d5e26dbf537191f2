"""Black-box tests with broken peers: lost clients, lost servers, cut, stalled and fragmented byte streams."""
