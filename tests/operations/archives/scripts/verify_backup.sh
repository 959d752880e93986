#!/bin/bash
# verify_backup.sh

BACKUP_FILE="$1"

if [ -z "$BACKUP_FILE" ]; then
    echo "Usage: $0 <backup_file.tar.gz>"
    exit 1
fi

echo "=== Backup Verification ==="

# Check file exists and has size
if [ ! -f "$BACKUP_FILE" ]; then
    echo "ERROR: Backup file not found"
    exit 1
fi

SIZE=$(du -h "$BACKUP_FILE" | cut -f1)
echo "File size: $SIZE"

# Verify checksum
if [ -f "${BACKUP_FILE}.sha256" ]; then
    echo "Verifying checksum..."
    if sha256sum -c "${BACKUP_FILE}.sha256"; then
        echo "✓ Checksum valid"
    else
        echo "✗ Checksum FAILED"
        exit 1
    fi
fi

# Test archive integrity
echo "Testing archive integrity..."
if tar -tzf "$BACKUP_FILE" > /dev/null 2>&1; then
    echo "✓ Archive valid"
else
    echo "✗ Archive corrupted"
    exit 1
fi

# List contents
echo ""
echo "Archive contents:"
tar -tzf "$BACKUP_FILE" | head -20

echo ""
echo "✓ Backup verification passed"
