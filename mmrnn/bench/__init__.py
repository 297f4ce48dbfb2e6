"""What this library costs beside what else is installed: one module a part, `measure(effort)` in each."""
