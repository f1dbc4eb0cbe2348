"""What connect() costs when libfsocket.so chooses the source port."""
