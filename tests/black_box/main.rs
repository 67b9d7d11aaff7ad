//! Black-box tests: they know the program by its command line, its output and the packets on the wire.
