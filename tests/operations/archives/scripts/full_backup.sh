#!/bin/bash
# full_backup.sh

set -e

BACKUP_DIR="/var/backups/nova-nic-full"
DATE=$(date +%Y%m%d)
NOVA_DIR="/opt/nova-nic"

echo "=== Nova NIC Full System Backup ==="

mkdir -p "$BACKUP_DIR"

# Stop service for consistent backup
echo "Stopping service..."
sudo systemctl stop nova-nic

# Create full backup
echo "Creating full backup..."
tar -czf "$BACKUP_DIR/nova-full-$DATE.tar.gz" \
    --exclude="$NOVA_DIR/.venv" \
    --exclude="$NOVA_DIR/__pycache__" \
    --exclude="$NOVA_DIR/logs/*.log" \
    -C "$(dirname $NOVA_DIR)" \
    "$(basename $NOVA_DIR)"

# Restart service
echo "Restarting service..."
sudo systemctl start nova-nic

# Checksum
sha256sum "$BACKUP_DIR/nova-full-$DATE.tar.gz" > "$BACKUP_DIR/nova-full-$DATE.tar.gz.sha256"

echo "Full backup complete: nova-full-$DATE.tar.gz"
echo "Size: $(du -h $BACKUP_DIR/nova-full-$DATE.tar.gz | cut -f1)"
