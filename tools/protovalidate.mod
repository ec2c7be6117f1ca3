module github.com/umbra-dr/umbra/tools/protovalidate

go 1.26.8

require github.com/bufbuild/protovalidate v1.2.2 // indirect
