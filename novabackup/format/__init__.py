"""Every byte on disk: records, the keys of objects, packs, sealing; nothing here does any I/O."""
