module firn/storeproxy

go 1.22
