"""Native C++ code on the CPU: building it on first use, and describing tensors to it. Headers lie beside."""
