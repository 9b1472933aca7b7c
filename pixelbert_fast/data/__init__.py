"""Records, builders, processor, sampler and collation: everything between files and batches."""
