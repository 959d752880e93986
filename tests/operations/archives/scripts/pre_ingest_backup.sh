#!/bin/bash
# pre_ingest_backup.sh

BACKUP_DIR="vector_db/backups"
TIMESTAMP=$(date +%Y%m%d_%H%M%S)

mkdir -p "$BACKUP_DIR"

echo "Creating pre-ingestion backup..."

for file in faiss_index.bin bm25_index.pkl metadata.json; do
    if [ -f "vector_db/$file" ]; then
        cp "vector_db/$file" "$BACKUP_DIR/${file}.pre_ingest_$TIMESTAMP"
        echo "  Backed up: $file"
    fi
done

echo "Pre-ingestion backup complete: $TIMESTAMP"
